"""A real `plexd-server`, and what a test needs to talk to it.

`served` runs it in the test's own process, in a tenth of a second; `running` in a process of its
own, for tests about signals, kills, exit status, the log, memory or the command line.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from plexd.clock import SystemClock
from plexd_server.app import ServeOptions, serve
from plexd_server.cli.main import main
from plexd_server.registry import Registry
from plexd_server.web.listeners import Address
from support.processes import ending_with_us

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp
    from multidict import CIMultiDictProxy

__all__ = [
    "SERVED",
    "Answer",
    "Client",
    "Running",
    "Server",
    "command",
    "connected",
    "create_node",
    "gzipped",
    "running",
    "served",
]

SERVED: Final = set[Path]()  # the data directories of the servers in this process


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
class Server:
    """Where a server listens, and where its operator logs in."""

    url: str
    login: str

    @property
    def operator_token(self) -> str:
        return self.login.partition("token=")[2]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@dataclass
class Running(Server):
    """A server in a process of its own."""

    process: subprocess.Popen[str]

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
    """Run ``plexd-server`` to its end, in this process unless the command handles signals."""
    words = [*map(str, arguments)]
    if {*words[:1]} & {"serve", "simulate"}:
        line = [sys.executable, "-W", "error", "-m", "plexd_server", *words]
        return subprocess.run(line, capture_output=True, text=True, check=check, timeout=30)
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        with _redirected(1, stdout), _redirected(2, stderr):
            status = _status(words)
        stdout.seek(0)
        stderr.seek(0)
        done = subprocess.CompletedProcess(words, status, stdout.read(), stderr.read())
    if check:
        done.check_returncode()
    return done


@contextmanager
def _redirected(descriptor: int, file: IO[str]) -> Iterator[None]:
    """The program writes to the standard descriptors themselves, past Python's buffers."""
    before = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


def _status(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as wrong_usage:
        return int(wrong_usage.code or 0)


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
def running(
    data_dir: Path, *arguments: object, listen: str = "127.0.0.1:0", descriptors: int | None = None
) -> Iterator[Running]:
    """A server over ``data_dir``, killed at the end if it still runs.

    It may have so many ``descriptors``, and without a number as many as the test.
    """
    line = [sys.executable, "-W", "error", "-m", "plexd_server", "serve", "--listen", listen]
    line += ["--data-dir", str(data_dir), *map(str, arguments)]
    if descriptors is not None:
        line = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *line]
    with (
        (data_dir.parent / f"{data_dir.name}.log").open("a") as log,
        subprocess.Popen(
            ending_with_us(*line),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=dict(os.environ),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield Running(*_addresses(process.stdout), process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """By the ordinary way if it takes it, else by force."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def served(data_dir: Path, *, port: int = 0, **options: Any) -> Iterator[Server]:
    """A server over ``data_dir`` on a thread of this process, with `ServeOptions`.

    Its tables are threads of this process as well.
    """
    chosen = ServeOptions(Address("127.0.0.1", port), data_dir, tables_apart=False, **options)
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve_until_stopped() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await serve(chosen, stop, lambda said: started.set_result((said, loop, stop)))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    with ThreadPoolExecutor(1, "served") as thread:
        ended = thread.submit(asyncio.run, serve_until_stopped())
        said, loop, stop = started.result(30)
        SERVED.add(data_dir)
        try:
            yield Server(*_addresses(io.StringIO(said)))
        finally:
            SERVED.remove(data_dir)
            loop.call_soon_threadsafe(stop.set)
            ended.result(30)


def _addresses(said: IO[str]) -> tuple[str, str]:
    """The server's own and the one to log in at, of the two lines with which it starts."""
    listening, dashboard = said.readline(), said.readline()
    return (
        listening.removeprefix("listening on ").strip(),
        dashboard.removeprefix("dashboard ").strip(),
    )
