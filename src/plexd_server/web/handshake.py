"""The beginning of a TLS connection, in little memory and bounded time.

asyncio gives each TLS connection a buffer of 256 KiB before its first byte has come, and a minute
to finish its handshake. Here a connection costs a few KiB until its first record is whole (RFC 8446
5.1), and its buffer then holds one record.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, Final

from plexd_server.web.problems import PROBLEM_TYPE, Problem, encode_problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

_RECORD_BYTES: Final = 16 * 1024
_HEADER_BYTES: Final = 5
_HANDSHAKE: Final = 22
_LEAST_SECONDS: Final = 0.1
_UNDER_WAY: Final = 1024  # of some 70 KiB each, until the client has answered once
_PLAIN_HTTP: Final = Problem(
    400, "this port speaks HTTPS; begin the address with https:// in place of http://"
)


class Handshake(asyncio.Protocol):
    """Waits for the first record, and then gives the connection to TLS and a protocol above it.

    All of the handshake has ``seconds`` from the moment the connection was accepted. A request in
    plain HTTP is answered with a sentence that helps; anything else ends the connection.
    """

    def __init__(
        self,
        context: SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
        under_way: UnderWay,
        seconds: float,
    ) -> None:
        self._context = context
        self._make_protocol = make_protocol
        self._under_way = under_way
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time."""
        stream: Any = transport  # asyncio's annotation leaves out what all of them have
        self._transport = stream
        self._timer = self._loop.call_later(self._seconds, stream.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        del exc
        self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Decide what the bytes are as soon as they show it."""
        if self._is_refused:  # what is unread would reset the connection before the answer is read
            return
        self._received += data
        if self._received[:1].isalpha():
            self._refuse_plain_http()
        elif not _may_begin(self._received):
            self._transport.abort()
        elif _has_whole_record(self._received):
            self._begin()

    def _refuse_plain_http(self) -> None:
        self._is_refused = True
        self._transport.write(_answer(_PLAIN_HTTP, is_head=self._received.startswith(b"HEAD ")))
        self._transport.write_eof()

    def _begin(self) -> None:
        self._timer.cancel()
        left: Any = max(self._timer.when() - self._loop.time(), _LEAST_SECONDS)
        tls = SmallTLS(
            self._loop,
            self._make_protocol(),
            self._context,
            self._under_way.begin(self._transport),
            server_side=True,
            ssl_handshake_timeout=left,  # fractions are fine, in spite of the annotation
        )
        self._transport.set_protocol(tls)
        tls.connection_made(self._transport)
        received, self._received = self._received, b""
        tls.feed(received)


class UnderWay:
    """The handshakes under way, ``most`` at once: for one more, the oldest is cut off.

    A client that means it answers within a round trip, so the oldest is one that has stopped.
    """

    def __init__(self, most: int = _UNDER_WAY) -> None:
        self._most = most
        self._transports: dict[asyncio.Future[None], asyncio.Transport] = {}

    def begin(self, transport: asyncio.Transport) -> asyncio.Future[None]:
        """Count a handshake until the future is done, whatever its outcome."""
        if len(self._transports) >= self._most:
            next(iter(self._transports.values())).abort()
            del self._transports[next(iter(self._transports))]
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transports[ended] = transport
        ended.add_done_callback(self._end)
        return ended

    def _end(self, ended: asyncio.Future[None]) -> None:
        ended.exception()  # or asyncio would log that nobody asked for it
        self._transports.pop(ended, None)


class SmallTLS(SSLProtocol):
    """asyncio's TLS with a buffer of one record."""

    max_size = _RECORD_BYTES

    def feed(self, data: bytes) -> None:
        """Take bytes that were read before TLS began."""
        while data:
            buffer = self.get_buffer(len(data))
            taken = min(len(data), len(buffer))
            buffer[:taken] = data[:taken]
            self.buffer_updated(taken)
            data = data[taken:]


def _may_begin(received: bytes) -> bool:
    """Whether this may be the beginning of a handshake's record."""
    return received[0] == _HANDSHAKE and _record_bytes(received) <= _RECORD_BYTES


def _has_whole_record(received: bytes) -> bool:
    return len(received) >= _HEADER_BYTES + max(_record_bytes(received), 1)


def _record_bytes(received: bytes) -> int:
    return int.from_bytes(received[3:_HEADER_BYTES]) if len(received) >= _HEADER_BYTES else 0


def _answer(problem: Problem, *, is_head: bool) -> bytes:
    body = encode_problem(problem)
    head = (
        f"HTTP/1.1 {problem.status} Bad Request\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
