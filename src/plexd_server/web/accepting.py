"""Accepting connections: so many at once, each counted from its first moment to its last.

asyncio's own accept loop goes on when the descriptors are used up, with a traceback for every
connection that waits, and counts nothing before a TLS handshake has ended.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd.background import in_background
from plexd.clock import SystemClock
from plexd.log_once import LogOnce
from plexd_server.web.crowds import giving_memory_back
from plexd_server.web.shares import Shares, sender_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

_LOG = logging.getLogger(__name__)
MOST_CONNECTIONS: Final = 16_384
_OTHER_DESCRIPTORS = 256  # files, threads and whatever else is no connection
_IN_A_ROW = 16  # between two turns of everything else
_PAUSE_SECONDS = 1.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_HINT: Final = "raise the hard limit of open files (LimitNOFILE=, ulimit -Hn)"


class Allowance(NamedTuple):
    """How many connections the process's limit of open files allows."""

    limit: int
    connections: int


def allowance() -> Allowance:
    """Raise the process's soft limit to the hard one, and say how many connections that allows.

    Idle connections count, so this is no bound on requests (`limits.InFlight` is).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return Allowance(hard, MOST_CONNECTIONS)
    left = hard - min(_OTHER_DESCRIPTORS, hard // 2)
    return Allowance(hard, max(1, min(MOST_CONNECTIONS, left)))


def log_allowance(allowed: Allowance) -> None:
    """Warn if the limit allows fewer connections than the server would take."""
    if allowed.connections < MOST_CONNECTIONS:
        _LOG.warning("few descriptors", extra={**allowed._asdict(), "hint": _HINT})


@asynccontextmanager
async def accepting(
    listeners: Sequence[socket.socket],
    start: Callable[[], asyncio.BaseProtocol],
    most: int,
    is_proxy: Callable[[str], bool],
) -> AsyncIterator[Acceptor]:
    """Accept connections while the body runs, at most ``most`` at once; closes the listeners."""
    acceptor = Acceptor(start, most, is_proxy)
    try:
        giving_back = giving_memory_back(lambda: acceptor.connections, SystemClock())
        async with in_background(acceptor.run(listeners), giving_back):
            yield acceptor
    finally:
        for each in listeners:
            each.close()


class Acceptor:
    """Gives each connection a protocol of ``start``; one beyond ``most`` is closed at once.

    One sender has at most as many as it leaves free, but for a proxy (``is_proxy`` of its address)
    and for Unix sockets, which have many clients behind them. Without free descriptors, connections
    wait in the kernel, and it tries again every second.
    """

    def __init__(
        self,
        start: Callable[[], asyncio.BaseProtocol],
        most: int,
        is_proxy: Callable[[str], bool],
    ) -> None:
        self._start = start
        self._shares = Shares(most)
        self._is_proxy = is_proxy
        self._open: dict[_Connection, asyncio.BaseTransport | None] = {}
        self._warnings = LogOnce(_LOG, "server")

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Accept until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in listeners:
                tasks.create_task(self._accept(each, tasks))

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def abort(self) -> None:
        """Cut off what is still open."""
        for transport in tuple(self._open.values()):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def _accept(self, listening: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        accepted = 0
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as err:
                await self._pause(err)
                continue
            self._admit(connection, address[0] if isinstance(address, tuple) else "", tasks)
            accepted += 1
            if not accepted % _IN_A_ROW:  # `sock_accept` itself gives nobody a turn
                await asyncio.sleep(0)

    async def _pause(self, err: OSError) -> None:
        """Wait until descriptors may be free again; a client that is gone is no reason to."""
        if err.errno in _EXHAUSTED:
            self._warnings.warn("connections not accepted", err.strerror or "", error=str(err))
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, host: str, tasks: asyncio.TaskGroup) -> None:
        sender = sender_of(host) if host and not self._is_proxy(host) else None
        if not self._shares.take(sender):
            connection.close()
            self._warnings.warn(
                "too many connections", "", address=host, connections=len(self._open)
            )
            return
        counted = _Connection(connection, partial(self._closed, sender))
        self._open[counted] = None
        tasks.create_task(self._connect(counted))

    def _closed(self, sender: str | None, connection: _Connection) -> None:
        if connection in self._open:  # a socket may be closed twice
            del self._open[connection]
            self._shares.give_back(sender)

    async def _connect(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(self._start, connection)
        except OSError:  # it ended before it began
            connection.close()
            return
        if connection in self._open:
            self._open[connection] = transport


class _Connection(socket.socket):
    """A connection that reports when its descriptor is closed."""

    def __init__(self, accepted: socket.socket, on_close: Callable[[_Connection], None]) -> None:
        super().__init__(fileno=accepted.detach())
        self._on_close = on_close
        self.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it

    def close(self) -> None:
        super().close()
        self._on_close(self)
