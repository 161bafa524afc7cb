"""A kernel on one end of a socket pair and a daemon on a real unix socket, both scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedKernel:
    """Answers the n-th conversation with the n-th script, and the last one for ever.

    Datagrams are there before they are asked for, as the kernel has them. An exception is raised
    by `connect`. ``asked`` holds the requests.
    """

    def __init__(self, *scripts: Sequence[bytes] | OSError) -> None:
        self._scripts = list(scripts)
        self._ends: list[socket.socket] = []

    def connect(self) -> socket.socket:
        script = self._scripts[0]
        if len(self._scripts) > 1:
            del self._scripts[0]
        if isinstance(script, OSError):
            raise script
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        for datagram in script:
            far.send(datagram)
        self._ends.append(far)
        return near

    @property
    def conversations(self) -> int:
        return len(self._ends)

    def asked(self) -> list[bytes]:
        return [end.recv(4096) for end in self._ends]

    def close(self) -> None:
        for end in self._ends:
            end.close()


@asynccontextmanager
async def daemon(directory: Path, serve: Serve, interface: str = "wg0") -> AsyncIterator[None]:
    """Serves each connection with ``serve`` and closes it then; leaves its socket file behind."""
    tasks: set[asyncio.Task[object] | None] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(one, directory / f"{interface}.sock")
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            assert task is not None
            task.cancel()
        await asyncio.gather(*[task for task in tasks if task], return_exceptions=True)


def answering(text: bytes, *, hang: asyncio.Event | None = None) -> Serve:
    """Serves ``text`` to every client; then sets ``hang``, if given, and never ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil(b"\n\n") == b"get=1\n\n"
        writer.write(text)
        await writer.drain()
        if hang is not None:
            hang.set()
            await reader.read()

    return serve
