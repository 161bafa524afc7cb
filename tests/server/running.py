"""A real `plexd-server` in a process of its own, and what a test needs to talk to it."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from plexd.clock import SystemClock
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp
    from multidict import CIMultiDictProxy

__all__ = [
    "Answer",
    "Client",
    "Running",
    "command",
    "connected",
    "create_node",
    "gzipped",
    "running",
]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that said where it listens."""

    process: subprocess.Popen[str]
    url: str
    login: str

    @property
    def operator_token(self) -> str:
        return self.login.partition("token=")[2]

    def peak_kib(self) -> int:
        """The most memory it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def stop(self) -> int:
        """End it the way a service manager does; the exit status."""
        self.process.terminate()
        return self.process.wait(20)


class Client:
    """Asks one server, by default with one bearer token."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str = "") -> None:
        self._session = session
        self.url = url
        self.token = token

    def with_token(self, token: str) -> Client:
        return Client(self._session, self.url, token)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(
        self, path: str, body: bytes, *, content_type: str = "application/json", **headers: str
    ) -> Answer:
        return await self._ask("POST", path, body, {"Content-Type": content_type, **headers})

    async def ask(self, method: str, path: str) -> Answer:
        return await self._ask(method, path, None, {})

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        async with self._session.request(
            method,
            self.url + path,
            data=None if body is None else io.BytesIO(body),
            headers=sent,
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())


def connected(url: str) -> socket.socket:
    """A plain connection to a server."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 6)


def command(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``plexd-server`` to its end."""
    line = [sys.executable, "-W", "error", "-m", "plexd_server", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=check, timeout=30)


def create_node(data_dir: Path, node_id: str = "n1") -> dict[str, Any]:
    """Register a node; its identity."""
    data_dir.mkdir(exist_ok=True)
    registry = Registry(data_dir, clock=SystemClock())
    try:
        made: dict[str, Any] = msgspec.to_builtins(registry.create_node(node_id))
    finally:
        registry.close()
    return made


@contextmanager
def running(data_dir: Path, *arguments: object, listen: str = "127.0.0.1:0") -> Iterator[Running]:
    """A server over ``data_dir``, killed at the end if it still runs."""
    line = [sys.executable, "-W", "error", "-m", "plexd_server", "serve", "--listen", listen]
    line += ["--data-dir", str(data_dir), *map(str, arguments)]
    with (
        (data_dir.parent / f"{data_dir.name}.log").open("a") as log,
        subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)
        ) as process,
    ):
        try:
            assert process.stdout is not None
            listening, dashboard = process.stdout.readline(), process.stdout.readline()
            url = listening.removeprefix("listening on ").strip()
            yield Running(process, url, dashboard.removeprefix("dashboard ").strip())
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """By the ordinary way if it takes it, else by force."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
