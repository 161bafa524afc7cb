"""Cuts connections that never send a first request.

Hyper's limit on waiting for headers has to be long, as it also runs between two requests of a kept
connection. This is the short one for strangers: the kernel knows of each connection whether it was
ever sent anything, and `Answering` whether a request of it is being worked on; one with neither
after ``_SILENT_SECONDS`` is shut down.

The connections are granian's, but its descriptors are this process's, so they can be found. They
are borrowed, neither closed nor duplicated: closing the duplicate of a number that has become a
database meanwhile would give up that file's locks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from litestar.types import ASGIApp, Receive, Scope, Send

    from plexd.clock import Clock

__all__ = ["Answering", "cut_silent"]

Peer = tuple[str, int]

_SILENT_SECONDS = 10.0
_EVERY_SECONDS = 2.0
_INFO_BYTES = 192
_SEGMENTS_SENT: Final = struct.Struct("156xI")  # tcpi_data_segs_out of linux/tcp.h's tcp_info


class Answering:
    """An ASGI app around another, which knows whose requests are being answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.peers: set[Peer] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        host, port = scope.get("client") or ("", 0)
        peer = (host, int(port))  # granian's is text; HTTP/1: one request of a connection at a time
        self.peers.add(peer)
        try:
            await self._app(scope, receive, send)
        finally:
            self.peers.discard(peer)


async def cut_silent(port: int, answering: AbstractSet[Peer], clock: Clock) -> None:
    """Look again and again, until cancelled. ``port`` is the server's own."""
    seen: dict[Peer, float] = {}
    while True:
        now = clock.monotonic()
        due = {peer for peer, since in seen.items() if now - since >= _SILENT_SECONDS} - answering
        silent = await asyncio.to_thread(_sweep, port, due)
        seen = {peer: seen.get(peer, now) for peer in silent - due - answering}
        await clock.sleep(_EVERY_SECONDS)


def _sweep(port: int, due: set[Peer]) -> set[Peer]:
    """The peers nothing was ever sent to, of which those that are ``due`` are cut."""
    silent = set[Peer]()
    for connection in _connections():
        with suppress(OSError, struct.error):
            if connection.getsockname()[1] != port or not _is_silent(connection):
                continue
            peer = _peer(connection)
            silent.add(peer)
            if peer in due:
                connection.shutdown(socket.SHUT_RDWR)
    return silent


def _connections() -> Iterator[socket.socket]:
    """Every internet socket of this process, borrowed for one step of the iteration."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            borrowed = socket.socket(fileno=int(entry.name))
            try:
                if borrowed.family in {socket.AF_INET, socket.AF_INET6}:
                    yield borrowed
            finally:
                borrowed.detach()


def _is_silent(connection: socket.socket) -> bool:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return _SEGMENTS_SENT.unpack_from(info) == (0,)


def _peer(connection: socket.socket) -> Peer:
    """As granian names it: without the zone of a link-local address."""
    host, port = connection.getpeername()[:2]
    return host.partition("%")[0], port
