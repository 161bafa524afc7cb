"""What a release left behind: a folder of ``tests/golden/releases/`` for each.

    exchanges.json    requests of an agent and of an operator, each with the release's answer
    agent.tar.xz      an agent's data directory: identity and spool, with points that wait
    server.tar.xz     a server's data directory, every table filled, as a power cut leaves it
    spool.json        what the spool held: its statistics, and the dead letters by their reason

The exchanges were made one after the other with a server on a copy of ``server.tar.xz``, so they
can be made again with another version. They all happened within seconds of `Recording.now`.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
from contextlib import contextmanager
from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import pytest
from msgspec import Struct

from plexd_server import app
from server.running import Answer, Server, served
from support.clocks import DatedClock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FOLDER",
    "OPERATOR_TOKEN",
    "RELEASES",
    "Asked",
    "Exchange",
    "Recording",
    "SpoolContents",
    "asking",
    "pack",
    "served_at",
    "settled",
    "unpack",
]

FOLDER: Final = Path(__file__).parent.parent / "golden" / "releases"
RELEASES: Final = sorted(path for path in FOLDER.glob("*.*.*") if path.is_dir())
OPERATOR_TOKEN: Final = "the-operator-of-the-recorded-releases"
_JSON: Final = ("application/json", "application/problem+json")


class Asked(Struct, frozen=True):
    """A request; ``body`` is not compressed, whatever the headers say."""

    method: str
    path: str
    headers: dict[str, str] = {}
    body: str = ""

    def to_send(self) -> bytes:
        """Return the body as it was sent."""
        is_packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.compress(self.body.encode()) if is_packed else self.body.encode()


class Exchange(Struct, frozen=True):
    """A request and its answer. Of a body that is no JSON, only its type is kept."""

    request: Asked
    status: int
    headers: dict[str, str]
    body: str

    @property
    def is_json(self) -> bool:
        return self.headers.get("Content-Type", "").startswith(_JSON)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def __str__(self) -> str:
        """Return a name for a test."""
        return f"{self.request.method} {self.request.path} {self.status}"


class SpoolContents(Struct, frozen=True):
    """What a spool held when it was closed. Points are JSON, as they are reported."""

    statistics: dict[str, int | float | str]
    dead_letters: dict[str, msgspec.Raw]


class Recording(Struct, frozen=True):
    """The file ``exchanges.json``; ``node_id`` is that of the agent which enrols and reports."""

    version: str
    now: datetime
    node_id: str
    exchanges: list[Exchange]

    @classmethod
    def load(cls, release: Path) -> Recording:
        return msgspec.json.decode((release / "exchanges.json").read_bytes(), type=cls)

    def save(self, release: Path) -> None:
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        (release / "exchanges.json").write_bytes(text + b"\n")

    def of(self, method: str, path: str, *statuses: int) -> list[Exchange]:
        """Return the exchanges of one route, by default those that went well."""
        return [
            each
            for each in self.exchanges
            if (each.request.method, each.request.path.partition("?")[0]) == (method, path)
            and each.status in (statuses or (200,))
        ]


async def asking(session: aiohttp.ClientSession, url: str, request: Asked) -> Answer:
    """Send a request to a server."""
    async with session.request(
        request.method,
        url + request.path,
        data=request.to_send() or None,
        headers=request.headers,
        allow_redirects=False,
    ) as response:
        return Answer(response.status, response.headers, await response.read())


@contextmanager
def served_at(now: datetime, data_dir: Path) -> Iterator[Server]:
    """Serve a data directory at the moment ``now``, with an operator whose token is known."""
    token = data_dir.parent / "operator.token"
    token.write_text(OPERATOR_TOKEN)
    token.chmod(0o600)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app, "SystemClock", lambda: DatedClock(now))
        with served(data_dir, operator_token_file=token) as server:
            yield server


async def settled(url: str) -> None:
    """Return once the live mesh of a server has read what was stored before its start."""
    asked = Asked("GET", "/v1/mesh", {"Authorization": f"Bearer {OPERATOR_TOKEN}"})
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        while not any(
            link["a_to_b"] and link["b_to_a"]
            for link in (await asking(session, url, asked)).json["links"]
        ):
            pass


def pack(directory: Path, archive: Path) -> None:
    """Put the files of a directory into an archive that says nothing of this machine."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                _add(packed, path, str(path.relative_to(directory)))


def _add(packed: tarfile.TarFile, path: Path, name: str) -> None:
    content = path.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    packed.addfile(entry, io.BytesIO(content))


def unpack(archive: Path, directory: Path) -> Path:
    """Return ``directory``, made with the files of the archive in it."""
    directory.mkdir(mode=0o700)
    with tarfile.open(archive) as packed:
        # Python before 3.11.4 has no filters, and looks at none.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(directory)
    return directory
