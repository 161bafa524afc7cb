"""One HTTP connection: uvicorn's protocol, with bounds of time and size that uvicorn lacks."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    import asyncio


HEAD_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 60.0
_GOODBYE_SECONDS: Final = 2.0
_HEAD_BYTES: Final = 64 * 1024
_PIPELINED: Final = 16
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_NO_LINGERING: Final = struct.pack("ii", 1, 0)


class _FlushingTransport:
    """A transport whose ``close`` ends in bounded time, even if the client reads nothing.

    Nothing that is written stays in the process but for one write: the writer waits until the
    kernel has all of it.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds

    def write(self, data: bytes) -> None:
        """Write, unless the connection has ended: asyncio would log each piece of the answer."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close when everything is sent, or after the seconds.

        A TLS client has two seconds to say goodbye (close_notify) when the kernel has everything,
        which goes on sending it.
        """
        if not self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                self._loop.call_later(self._seconds, self._cut_off)
            elif self._transport.get_extra_info("ssl_object") is not None:
                self._loop.call_later(_GOODBYE_SECONDS, self._transport.abort)
        self._transport.close()

    def _cut_off(self) -> None:
        """Discard what the kernel still holds as well."""
        if (connection := self._transport.get_extra_info("socket")) is not None:
            with suppress(OSError):  # it ended by itself
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """One connection: its requests' heads within bounds of time and size, few of them waiting.

    Uvicorn bounds the idle time between two requests, and the application the body (body.py,
    limits.py). Everything else is bounded here: heads, the extensions of chunks, and what follows
    the last chunk. The rest of a body that is answered already is thrown away, in the time of a
    head.
    """

    def __init__(
        self,
        *args: Any,  # uvicorn's own
        head_seconds: float,
        flush_seconds: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._flush_seconds = flush_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._bare_bytes = 0  # since the last head ended or the last piece of a body came
        self._is_bare = True
        self._is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(_FlushingTransport(transport, self.loop, self._flush_seconds))  # type: ignore[arg-type]  # it is one in all but its type
        # It may pause the writing at once. With 0 as the upper limit, TLS would stay paused.
        transport.set_write_buffer_limits(1, 0)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it to run after a reset

    def data_received(self, data: bytes) -> None:
        if self._is_idle():  # an empty line stops uvicorn's idle timer and begins no message
            self._start_head_timer()
        while data and not self.transport.is_closing():
            piece = data[: _HEAD_BYTES - self._bare_bytes]  # a head that is whole ends in it
            data = data[len(piece) :]
            self._parse(piece)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads it; None in uvicorn
        """Close, but answer first what a client asked that only says that it asks no more.

        Over TLS, asyncio closes in any case.
        """
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False  # it is the last one
        return self.scheme == "http"

    def _parse(self, piece: bytes) -> None:
        self._is_bare = True
        super().data_received(piece)
        self._bare_bytes = self._bare_bytes + len(piece) if self._is_bare else 0
        if self._bare_bytes >= _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(
                "The head of the request, or what is between its chunks, is long."
            )

    def on_message_begin(self) -> None:
        self._start_head_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        self._is_bare, self._is_in_body = False, True
        super().on_headers_complete()
        if len(self.pipeline) > _PIPELINED:  # one read can hold thousands
            raise ValueError("too many requests without waiting for an answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:  # a field after the body could change what was already read
            return
        value = value.strip(b" \t")  # no part of the value (RFC 9110 5.5)
        # The parser looks at the last coding only, and would pass on what the others encoded.
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

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_seconds, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
