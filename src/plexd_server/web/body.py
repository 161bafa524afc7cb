"""Reading a request's body within bounds of size and time, whatever the sender does.

A body is decompressed chunk by chunk as it arrives, so a bomb is refused when its output passes
the bound, and costs no more memory than that.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from isal import isal_zlib
from isal.igzip_lib import IsalError

from plexd_server.web.limits import Admission, Reservation
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar import Request

    from plexd.clock import Clock

MAX_COMPRESSED_BYTES: Final = 1024 * 1024
MAX_DECOMPRESSED_BYTES: Final = 8 * 1024 * 1024
_READ_SECONDS = 20.0
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * MAX_COMPRESSED_BYTES
_STEP_BYTES = 64 * 1024
_GZIP = 31  # zlib's number for "a gzip header, and check the CRC"


async def read_body(
    request: Request[Any, Any, Any], reservation: Reservation, *, clock: Clock
) -> bytes:
    """Read the body, decompressed. Raises `Problem`: 400 broken, 408 late, 413 too large, 415.

    The body fills ``reservation`` as it grows, which may raise 503. The rest of a refused body is
    read and thrown away, up to a bound: a client that is still sending would otherwise see a reset
    connection in place of the answer. A body whose refusal is known beforehand is not kept and has
    little time, or slow senders would occupy all requests in flight.
    """
    _check_type(request)
    return await _receive(request, _sink(request, reservation), reservation.refusal, clock)


async def read_small(request: Request[Any, Any, Any], most: int, *, clock: Clock) -> bytes:
    """Read a body as `read_body` does, of at most ``most`` bytes and without compression."""
    _check_type(request)
    if field_of(request, "content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "the Content-Encoding must be identity")
    sink = _PlainSink(most, Reservation(Admission(clock, total_bytes=most), None))
    return await _receive(request, sink, None, clock)


async def _receive(
    request: Request[Any, Any, Any], sink: _PlainSink, refusal: Problem | None, clock: Clock
) -> bytes:
    problem = refusal or _refuse_announced(sink, request.headers.get("content-length", ""))
    try:
        async with clock.timeout(_READ_SECONDS if problem is None else _LINGER_SECONDS):
            return await _read(_chunks(request), sink, problem)
    except TimeoutError:
        if problem is not None:
            raise problem from None
        raise Problem(408, f"the body took longer than {_READ_SECONDS:.0f} s") from None


async def _chunks(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises `Problem` 408 if the client leaves before its end."""
    is_whole = False
    while not is_whole:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Problem(408, "the body ended early")
        yield message["body"]
        is_whole = not message["more_body"]


def _check_type(request: Request[Any, Any, Any]) -> None:
    """Refuse what is not JSON before reading it."""
    media_type = field_of(request, "content-type").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "the Content-Type must be application/json")


def field_of(request: Request[Any, Any, Any], name: str, default: str = "") -> str:
    """Join all values of a header in one line: which of two is meant cannot be guessed."""
    return ", ".join(request.headers.getall(name, [default]))


async def _read(chunks: AsyncIterator[bytes], sink: _PlainSink, problem: Problem | None) -> bytes:
    received = 0
    try:
        async for chunk in chunks:
            received += len(chunk)
            if received > _LINGER_BYTES:
                break
            if problem is None:
                try:
                    sink.write(chunk)
                except Problem as err:
                    problem = err
                    sink.discard()
        if problem is not None:
            raise problem
        return sink.getvalue()
    finally:
        sink.discard()  # the traceback of a refusal would keep it alive


class _PlainSink:
    """Collects a body that is not compressed."""

    def __init__(self, limit: int, reservation: Reservation) -> None:
        self._limit = limit
        self._reservation = reservation
        self._size = 0
        self._buffer = BytesIO()  # its `getvalue` makes no copy

    def announce(self, size: int) -> None:
        """Reserve bytes for this ``Content-Length``. Raises `Problem` if it is too much."""
        _refuse_larger("body", size, self._limit)
        self._reservation.reserve(size)

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        _refuse_larger("body", self._size, self._limit)
        self._reservation.fill(len(chunk))
        self._buffer.write(chunk)

    def discard(self) -> None:
        """Release the memory of what has arrived."""
        self._buffer = BytesIO()

    def getvalue(self) -> bytes:
        return self._buffer.getvalue()


class _GzipSink(_PlainSink):
    """Collects what one gzip member decompresses to; anything after the member is refused."""

    def __init__(self, compressed_limit: int, limit: int, reservation: Reservation) -> None:
        super().__init__(limit, reservation)
        self._compressed_limit = compressed_limit
        self._compressed = 0
        self._stream = isal_zlib.decompressobj(_GZIP)

    def announce(self, size: int) -> None:
        _refuse_larger("compressed body", size, self._compressed_limit)
        self._reservation.reserve(size)

    def write(self, chunk: bytes) -> None:
        self._compressed += len(chunk)
        _refuse_larger("compressed body", self._compressed, self._compressed_limit)
        while chunk:
            super().write(self._step(chunk))
            chunk = self._stream.unconsumed_tail
        if self._stream.unused_data:
            raise Problem(400, "the body goes on after its gzip data")

    def _step(self, chunk: bytes) -> bytes:
        try:
            return self._stream.decompress(chunk, _STEP_BYTES)
        except IsalError:  # type: ignore[misc]  # the stub declares an instance, not a class
            raise Problem(400, "the body is not valid gzip") from None

    def getvalue(self) -> bytes:
        if not self._stream.eof:
            raise Problem(400, "the gzip data ended early")
        return super().getvalue()


def _refuse_larger(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise Problem(413, f"the {what} is larger than {limit} bytes")


def _refuse_announced(sink: _PlainSink, length: str) -> Problem | None:
    """Return the refusal of a body whose ``Content-Length`` is already too much."""
    try:
        sink.announce(int(length[:20]) if length.isascii() and length.isdigit() else 0)
    except Problem as refusal:
        return refusal
    return None


def _sink(request: Request[Any, Any, Any], reservation: Reservation) -> _PlainSink:
    """Choose the sink for the body's encoding. Raises `Problem` 415 for any other encoding."""
    encoding = field_of(request, "content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        return _GzipSink(MAX_COMPRESSED_BYTES, MAX_DECOMPRESSED_BYTES, reservation)
    if encoding == "identity":
        return _PlainSink(MAX_DECOMPRESSED_BYTES, reservation)
    raise Problem(415, "the Content-Encoding must be gzip or identity", headers=_ACCEPT)


_ACCEPT = {"Accept-Encoding": "gzip, identity"}
