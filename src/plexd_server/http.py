"""Granian inside this process's own event loop, on a socket this process bound itself.

Binding here rather than in granian gives the real port before anything is served, errors with an
errno, and connections that wait in the kernel until the first request can be answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from plexd.clock import Clock, SystemClock
from plexd_server.connections import Answering, cut_silent
from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.types import ASGIApp

__all__ = ["Address", "bind", "serving"]

_LOG = logging.getLogger(__name__)
_BACKLOG = 4096  # the kernel's own default limit
# Also how long a kept connection may be idle, since hyper counts from the last answer on: longer
# than the usual report interval, or every report would need a new connection. A connection that
# never sent a request is cut much earlier (connections.py).
_HEADER_TIMEOUT_MS = 90_000
_SEND_BUFFER_BYTES = 256 * 1024
_CONNECTIONS = 16_384
_OTHER_DESCRIPTORS = 256  # files, threads and whatever else is no connection
_CLOCK = SystemClock()
_IS_UNIX = False  # TCP, not a Unix socket


class Address(NamedTuple):
    """A host and a port; the host of an IPv6 address is without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises `StartError` with what to do about it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as err:
        raise StartError(f"cannot listen on {address}: {_reason(err)}") from err
    # Connections inherit it. The kernel would take megabytes of an answer that nobody reads.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    listening.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it
    return listening


@asynccontextmanager
async def serving(
    app: ASGIApp, listening: socket.socket, *, grace_seconds: float, clock: Clock = _CLOCK
) -> AsyncIterator[None]:
    """Serve ``app`` while the body runs; on leaving, let requests in flight finish within bounds.

    New connections are refused from the moment of leaving. What has not finished after
    ``grace_seconds`` is cut off.
    """
    answering = Answering(app)
    port = listening.getsockname()[1]
    server = _BoundServer(answering, listening)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.serve())
        watch = tasks.create_task(cut_silent(port, answering.peers, clock))
        try:
            yield
        finally:
            watch.cancel()
            server.stop()  # type: ignore[no-untyped-call]  # granian leaves it untyped
            await asyncio.wait({task}, timeout=grace_seconds)
            if not task.done():
                _LOG.warning("requests cut off", extra={"after_seconds": grace_seconds})
                asyncio.get_running_loop().set_exception_handler(_ignore_late_end)
                task.cancel()


class _BoundServer(Server):
    """Granian's embeddable server, taking the listening socket as it is."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        self._listening = listening
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
            backlog=_BACKLOG,
            backpressure=_room_for_connections(),
            websockets=False,
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        # Granian closes it when it stops, and only then are new connections refused.
        descriptor = self._listening.detach()
        holder = SocketHolder(descriptor, _IS_UNIX, _BACKLOG)  # type: ignore[call-arg]  # stub lacks it
        self._shd = holder  # type: ignore[assignment]  # annotated as None only


def _room_for_connections() -> int:
    """How many connections granian may hold; raises the process's soft limit to the hard one.

    Granian counts connections, idle ones too, so this is no bound on requests (`limits.InFlight`).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(1, min(_CONNECTIONS, hard - _OTHER_DESCRIPTORS))


def _ignore_late_end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Granian reports the end of a worker to a future that was cancelled with the worker's task."""
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


def _reason(err: OSError | UnicodeError) -> str:
    if isinstance(err, UnicodeError) or (err.errno or 0) < 0:  # a resolver's number
        return "no such host; give an address of this machine with --listen"
    if err.errno == errno.EADDRINUSE:
        return "address already in use; choose another with --listen"
    if err.errno == errno.EACCES:
        return "permission denied; choose a port above 1023 with --listen"
    if err.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --listen"
    return f"{err.strerror or err}; choose another address with --listen"
