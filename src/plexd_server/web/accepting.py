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
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd.background import in_background
from plexd.log_once import LogOnce

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
    listeners: Sequence[socket.socket], start: Callable[[], asyncio.BaseProtocol], most: int
) -> AsyncIterator[Acceptor]:
    """Accept connections while the body runs, at most ``most`` at once; closes the listeners."""
    acceptor = Acceptor(start, most)
    try:
        async with in_background(acceptor.run(listeners)):
            yield acceptor
    finally:
        for each in listeners:
            each.close()


class Acceptor:
    """Gives each connection a protocol of ``start``; one beyond ``most`` is closed at once.

    Without free descriptors, connections wait in the kernel, and it tries again every second.
    """

    def __init__(self, start: Callable[[], asyncio.BaseProtocol], most: int) -> None:
        self._start = start
        self._most = most
        self._open: dict[_Connection, asyncio.BaseTransport | None] = {}
        self._warnings = LogOnce(_LOG, "server")

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Accept until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in listeners:
                tasks.create_task(self._accept(each, tasks))

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
                connection, _ = await loop.sock_accept(listening)
            except OSError as err:
                await self._pause(err)
                continue
            self._admit(connection, tasks)
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

    def _admit(self, connection: socket.socket, tasks: asyncio.TaskGroup) -> None:
        if len(self._open) >= self._most:
            connection.close()
            self._warnings.warn("too many connections", "", connections=self._most)
            return
        counted = _Connection(connection, self._open.pop)
        self._open[counted] = None
        tasks.create_task(self._connect(counted))

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

    def __init__(
        self,
        accepted: socket.socket,
        on_close: Callable[[_Connection, None], asyncio.BaseTransport | None],
    ) -> None:
        super().__init__(fileno=accepted.detach())
        self._on_close = on_close
        self.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it

    def close(self) -> None:
        super().close()
        self._on_close(self, None)
