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
import struct
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager
    from ssl import SSLContext

    from litestar.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["Address", "bind", "serving"]

_LOG = logging.getLogger(__name__)
_BACKLOG = 4096  # the kernel's own default limit
_HEAD_SECONDS = 10.0
_HEAD_BYTES: Final = 64 * 1024
_PIPELINED: Final = 16
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_FLUSH_SECONDS = 60.0
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
# Longer than the usual report interval, or every report would need a new connection.
_IDLE_SECONDS = 90
_SEND_BUFFER_BYTES = 256 * 1024
_CONNECTIONS = 16_384
_OTHER_DESCRIPTORS = 256  # files, threads and whatever else is no connection
_LAST_SECONDS = 1.0


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
    head_seconds: float = _HEAD_SECONDS,
    flush_seconds: float = _FLUSH_SECONDS,
) -> AsyncIterator[None]:
    """Serve ``app`` while the body runs; on leaving, let requests in flight finish within bounds.

    New connections are refused from the moment of leaving. What has not finished after
    ``grace_seconds`` is cut off. A connection that takes longer than ``head_seconds`` for the
    head of a request is closed. One that is closed is cut off if nobody has read what was written
    to it after ``flush_seconds``.
    """
    protocol = partial(
        _BoundedProtocol,
        head_seconds=head_seconds,
        flush_seconds=flush_seconds,
        most_connections=_room_for_connections(),
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = _Server(_config(app, tls, protocol))
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
    """Not that an answer was given up (`limits.InFlight`): anybody could fill the log with it."""
    return record.msg != "ASGI callable returned without completing response."


class _Server(Server):
    """Uvicorn's server, leaving the signals to whoever runs it."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        return nullcontext()

    def cut_off(self) -> None:
        """Close every connection as it stands; what works on its request is told."""
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


class _Ending:
    """A transport whose closing has an end, also while nobody reads what is to be sent before."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self.write = transport.write

    def close(self) -> None:
        """Close when all is sent, or after the seconds."""
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(self._seconds, self._cut_off)
        self._transport.close()

    def _cut_off(self) -> None:
        """Let go of what the kernel still holds as well."""
        if (connection := self._transport.get_extra_info("socket")) is not None:
            with suppress(OSError):  # it ended by itself
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _BoundedProtocol(HttpToolsProtocol):
    """One connection: its requests' heads within bounds of time and size, few of them waiting.

    Uvicorn bounds the idle time between two requests; the body's time and size are the
    application's to bound (body.py, limits.py). What is no body, that is heads, the extensions of
    chunks and what follows the last one, is bounded here. What is left of a body that was answered
    already is thrown away, in the time of a head.
    """

    def __init__(
        self,
        *args: Any,  # what uvicorn hands over is its own
        head_seconds: float,
        flush_seconds: float,
        most_connections: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._flush_seconds = flush_seconds
        self._most_connections = most_connections
        self._deadline: asyncio.TimerHandle | None = None
        self._bare_bytes = 0  # since a head ended or a piece of a body came
        self._is_bare = True
        self._is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(_Ending(transport, self.loop, self._flush_seconds))  # type: ignore[arg-type]  # it is one in all but its type
        if len(self.connections) > self._most_connections:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it to run after a reset

    def data_received(self, data: bytes) -> None:
        if self._is_idle():  # an empty line ends uvicorn's patience and begins no message
            self._expect_head()
        self._is_bare = True
        super().data_received(data)
        self._bare_bytes = self._bare_bytes + len(data) if self._is_bare else 0
        if self._bare_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(
                "The head of the request, or what is between its chunks, is long."
            )

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._have_head()
        self._is_bare, self._is_in_body = False, True
        super().on_headers_complete()
        if len(self.pipeline) > _PIPELINED:  # thousands fit into what is read at once
            raise ValueError("too many requests without waiting for an answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:  # what comes after the body could change what was already read
            return
        # The parser looks at the last coding only, and would hand over what others have made of it.
        if name.lower() == _TRANSFER_ENCODING and value.lower() != b"chunked":
            raise ValueError("a transfer coding besides chunked")
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._is_bare = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        super().on_message_complete()

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves None out
        return cycle is not None and cycle.response_complete

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._head_seconds, self.transport.close)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _room_for_connections() -> int:
    """How many connections to hold; raises the process's soft limit to the hard one.

    Idle ones count, so this is no bound on requests (`limits.InFlight`).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(1, min(_CONNECTIONS, hard - _OTHER_DESCRIPTORS))


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
