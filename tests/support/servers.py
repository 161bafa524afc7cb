"""Servers on loopback that answer as a test says, and remember the requests.

`ScriptedServer` speaks correct HTTP; `RawServer` leaves every byte to the test. Both are async
context managers, listen on a free port of 127.0.0.1, and cancel open answers when they are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from plexd.closing import AsyncClosing

if TYPE_CHECKING:
    import ssl
    from typing import Self

__all__ = ["Connection", "RawServer", "Received", "Reply", "ScriptedServer", "http_answer"]


# Long enough: a request comes at once, or the test fails.
_PATIENCE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it was sent: nothing unescaped, nothing decompressed."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    client_port: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ScriptedServer(AsyncClosing):
    """Plays one entry of its script for each request, and repeats the last entry for ever.

    An entry is a `Reply`, a handler that makes its own answer, or an `asyncio.Event` to wait for
    before a plain 200. ``asked`` is set whenever a request has come.
    """

    def __init__(
        self, *script: Reply | Handler | asyncio.Event, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = list(script or (Reply(),))
        self.requests: list[Received] = []
        self.asked = asyncio.Event()
        self._tls = tls
        self._port = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        peer = transport.get_extra_info("peername")
        body = await request.content.read()
        self.requests.append(
            Received(request.method, request.raw_path, request.headers, body, peer[1])
        )
        self.asked.set()
        entry = self.script[0]
        if len(self.script) > 1:
            del self.script[0]
        if isinstance(entry, asyncio.Event):
            await entry.wait()
            entry = Reply()
        if isinstance(entry, Reply):
            return web.Response(status=entry.status, body=entry.body, headers=entry.headers)
        return await entry(request)

    async def next_request(self) -> None:
        """Wait until a request has come since ``asked`` was cleared."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self.asked.wait()

    async def start(self) -> None:
        server = web.Server(self._answer, auto_decompress=False, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def aclose(self) -> None:
        await self.stop()


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection of a `RawServer`; ``number`` counts from 0."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one whole request, head and body. Raises if the client closes before its end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a RST."""
        self.writer.transport.abort()


Talk = Callable[[Connection], Awaitable[None]]


class RawServer(AsyncClosing):
    """Calls ``talk`` for each connection and closes the connection when it returns.

    A client that closes in the middle ends ``talk`` without an error.
    """

    def __init__(
        self, talk: Talk, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.connections = 0
        self._host = host
        self._talk = talk
        self._tls = tls
        self._talks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(Connection(self.connections, reader, writer)))
        self.connections += 1
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._talk(connection)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client closed
        finally:
            connection.writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self._host, 0, ssl=self._tls)
        return self

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        talks = tuple(self._talks)
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def http_answer(status: str = "200 OK", body: bytes = b"", *headers: str) -> bytes:
    """Encode an answer with the right length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
