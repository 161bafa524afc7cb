"""Uvicorn inside this process's own event loop, on a socket this process bound itself.

Binding here rather than in uvicorn gives the real port before anything is served, errors with an
errno, and connections that wait in the kernel until the first request can be answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uvicorn import Config, Server

from plexd_server.errors import StartError
from plexd_server.web.protocol import FLUSH_SECONDS, HEAD_SECONDS, BoundedProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

    from litestar.types import ASGIApp

_LOG = logging.getLogger(__name__)
_BACKLOG = 4096  # the kernel's own default limit
# Longer than the usual report interval, or every report would need a new connection.
_IDLE_SECONDS = 90
_SEND_BUFFER_BYTES = 256 * 1024
_CONNECTIONS = 16_384
_OTHER_DESCRIPTORS = 256  # files, threads and whatever else is no connection
_LAST_SECONDS = 1.0
_REMEDIES: Final = {
    errno.EADDRINUSE: "address already in use; choose another",
    errno.EACCES: "permission denied; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another",
}


class Address(NamedTuple):
    """A host and a port; the host of an IPv6 address is without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(address: Address) -> socket.socket:
    """Open a listening socket. Raises `StartError` with what to do about it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as err:
        raise StartError(f"cannot listen on {address}: {_reason(err)}") from err
    # Connections inherit it. The kernel would take megabytes of an answer that nobody reads.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    # asyncio sets it only on sockets that were made with TCP's number. Without it an answer's body
    # waits up to 40 ms for the client to acknowledge its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it
    return listening


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listening: socket.socket,
    *,
    grace_seconds: float,
    tls: SSLContext | None = None,
    head_seconds: float = HEAD_SECONDS,
    flush_seconds: float = FLUSH_SECONDS,
) -> AsyncIterator[None]:
    """Serve ``app`` while the body runs; on leaving, let requests in flight finish within bounds.

    New connections are refused from the moment of leaving, and requests that have not finished
    after ``grace_seconds`` are cut off. A connection is closed if the head of a request takes
    longer than ``head_seconds``. A closed connection is cut off if its client has not read the
    rest of the answer after ``flush_seconds``.
    """
    protocol = partial(
        BoundedProtocol,
        head_seconds=head_seconds,
        flush_seconds=flush_seconds,
        most_connections=_most_connections(),
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = _SignalFreeServer(_config(app, tls, protocol))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.serve([listening]))
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.wait({task}, timeout=grace_seconds)
            if not task.done():
                _LOG.warning("requests cut off", extra={"after_seconds": grace_seconds})
                server.cut_off()
                await asyncio.wait({task}, timeout=_LAST_SECONDS)
                task.cancel()


def _config(app: ASGIApp, tls: SSLContext | None, protocol: Any) -> Config:
    return Config(
        app,
        http=protocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_SECONDS,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out that an answer was given up (`limits.InFlight`): a client could fill the log."""
    return record.msg != "ASGI callable returned without completing response."


class _SignalFreeServer(Server):
    """Uvicorn's server, which leaves the signals to the composition root."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        return nullcontext()

    def cut_off(self) -> None:
        """Close every connection at once; the application learns of it from ``receive``."""
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


def _most_connections() -> int:
    """Raise the process's soft limit to the hard one; how many connections that allows.

    Idle connections count, so this is no bound on requests (`limits.InFlight` is).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(1, min(_CONNECTIONS, hard - _OTHER_DESCRIPTORS))


def _reason(err: OSError | UnicodeError) -> str:
    if isinstance(err, UnicodeError) or (err.errno or 0) < 0:  # a resolver's number
        return "no such host; give an address of this machine with --listen"
    other = f"{err.strerror or err}; choose another address"
    return f"{_REMEDIES.get(err.errno or 0, other)} with --listen"
