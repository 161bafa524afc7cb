"""The beginning of a TLS connection, in little memory and bounded time.

asyncio gives each TLS connection a buffer of 256 KiB before its first byte has come, and a minute
to finish its handshake. Here a connection costs a few KiB until its first record is whole (RFC 8446
5.1), and all connections share one buffer.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, Final

from plexd_server.web.handshake_queue import HandshakeQueue
from plexd_server.web.problems import PROBLEM_TYPE, Problem, encode_problem
from plexd_server.web.shares import sender_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from plexd_server.web.handshake_queue import Ended

_RECORD_BYTES: Final = 16 * 1024
_BUFFER_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 5
_MESSAGE_HEADER_BYTES: Final = 4  # RFC 8446 4: the type and the length
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = b"\x01"
_LEAST_SECONDS: Final = 0.1
_PLAIN_HTTP: Final = Problem(
    400, "this port speaks HTTPS; begin the address with https:// in place of http://"
)


class TLSEndpoint:
    """What the TLS connections of a server share; call it for the protocol of a new one.

    A handshake has ``handshake_seconds`` from the moment its connection was accepted. A connection
    that is closed has ``shutdown_seconds`` until its client has read the rest and said goodbye.
    """

    def __init__(
        self,
        context: SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        handshake_seconds: float,
        shutdown_seconds: float,
    ) -> None:
        self._context = context
        self._shutdown_seconds: Any = shutdown_seconds
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.make_protocol = make_protocol
        self.seconds = handshake_seconds
        self.queue = HandshakeQueue()

    def __call__(self) -> Handshake:
        """Make the protocol of a connection that was accepted."""
        return Handshake(self)

    def wrap(self, seconds: Any, ended: Ended) -> SmallTLS:
        """Make the TLS of a connection, whose handshake has ``seconds``, fractions included."""
        return SmallTLS(
            self._buffer,
            asyncio.get_running_loop(),
            _AfterHandshake(self.make_protocol),
            self._context,
            ended,
            server_side=True,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=self._shutdown_seconds,
        )


class Handshake(asyncio.Protocol):
    """Waits for the first record and for its turn, and gives the connection to TLS.

    A request in plain HTTP is answered with a sentence that helps; anything else ends the
    connection.
    """

    sender = ""

    def __init__(self, endpoint: TLSEndpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time."""
        stream: Any = transport  # asyncio's annotation leaves out what all of them have
        self._transport = stream
        peer = stream.get_extra_info("peername")
        self.sender = sender_of(peer[0]) if peer else ""
        self._timer = self._loop.call_later(self._endpoint.seconds, stream.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        del exc
        self._timer.cancel()
        self._endpoint.queue.remove(self)

    def data_received(self, data: bytes) -> None:
        """Decide what the bytes are as soon as they show it."""
        if self._is_refused:  # what is unread would reset the connection before the answer is read
            return
        was_whole = _has_whole_record(self._received)
        self._received += data
        if self._received[:1].isalpha():
            self._refuse_plain_http()
        elif not _may_begin(self._received):
            self._transport.abort()
        elif not was_whole and _has_whole_record(self._received):
            self._endpoint.queue.add(self)

    def _refuse_plain_http(self) -> None:
        self._is_refused = True
        self._transport.write(_answer(_PLAIN_HTTP, is_head=self._received.startswith(b"HEAD ")))
        self._transport.write_eof()

    def begin(self, ended: Ended) -> None:
        """Give the connection, and what came of it, to TLS."""
        self._timer.cancel()
        left = max(self._timer.when() - self._loop.time(), _LEAST_SECONDS)
        tls = self._endpoint.wrap(left, ended)
        self._transport.set_protocol(tls)
        self._transport.set_write_buffer_limits(0)
        tls.connection_made(self._transport)
        received, self._received = self._received, b""
        tls.feed(received)

    def abort(self) -> None:
        """Cut the connection off."""
        self._transport.abort()


class SmallTLS(SSLProtocol):
    """asyncio's TLS with a buffer that all connections share.

    Bytes are read into it and taken out of it within one callback.
    """

    max_size = 0  # of the buffer that asyncio would make

    def __init__(self, buffer: memoryview, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.max_size = _RECORD_BYTES  # type: ignore[misc]  # of one read; asyncio reads it of self
        self._ssl_buffer_view = buffer

    def get_buffer(self, n: int) -> memoryview:
        del n
        return self._ssl_buffer_view

    def feed(self, data: bytes) -> None:
        """Take bytes that were read before TLS began."""
        while data:
            taken = min(len(data), len(self._ssl_buffer_view))
            self._ssl_buffer_view[:taken] = data[:taken]
            self.buffer_updated(taken)
            data = data[taken:]

    def _get_write_buffer_size(self) -> int:
        """Count also what waits below TLS, which asyncio leaves out."""
        stream: Any = self._transport
        above: int = super()._get_write_buffer_size()  # type: ignore[misc]  # its types leave it out
        below: int = stream.get_write_buffer_size() if stream is not None else 0
        return above + below


class _AfterHandshake(asyncio.Protocol):
    """Makes the protocol above TLS when the handshake has ended well."""

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._make_protocol = make_protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        protocol = self._make_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _may_begin(received: bytes) -> bool:
    """Whether this may be a record with a ClientHello, or its beginning, or a little more than it.

    OpenSSL would make room for a ClientHello of 128 KiB that only says that it is so long.
    """
    return (
        received[0] == _HANDSHAKE
        and _record_bytes(received) <= _RECORD_BYTES
        and len(received) <= 2 * _RECORD_BYTES
        and received[_HEADER_BYTES : _HEADER_BYTES + 1] in {b"", _CLIENT_HELLO}
        and int.from_bytes(received[_HEADER_BYTES + 1 : _HEADER_BYTES + 4]) <= _RECORD_BYTES
    )


def _has_whole_record(received: bytes) -> bool:
    return len(received) >= _HEADER_BYTES + max(_record_bytes(received), _MESSAGE_HEADER_BYTES)


def _record_bytes(received: bytes) -> int:
    return int.from_bytes(received[3:_HEADER_BYTES]) if len(received) >= _HEADER_BYTES else 0


def _answer(problem: Problem, *, is_head: bool) -> bytes:
    body = encode_problem(problem)
    head = (
        f"HTTP/1.1 {problem.status} Bad Request\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
