"""One connection to a server: asyncio brings the bytes, llhttp (by httptools) reads them.

An answer is read to a cap, its head to 64 KiB in however many fields. llhttp has no bound for
either.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_MOST_HEAD_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 256 * 1024  # TLS takes about a millisecond for it
# Surrogates cannot be encoded, and the error of that would show the whole head with its token.
_NOT_IN_A_LINE: Final = re.compile(r"[\r\n\0\ud800-\udfff]")
_NOT_IN_A_TARGET: Final = re.compile(r"[\0- \x7f\ud800-\udfff]")
_SWITCHING_PROTOCOLS: Final = 101  # the last of the 1xx that comes: nothing follows it


class Answer(Struct, frozen=True):
    """A complete answer. ``body`` is cut, and ``cut`` is true, where it went beyond the cap.

    ``headers`` are named as in ``Retry-After`` and ``Etag``, however the server wrote them; of
    several of one name the first counts. Trailers are left out.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool
    phrase: str = ""


def encode_request(
    method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """Return a request as it is sent. Raises `ValueError`, which quotes nothing."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if _NOT_IN_A_TARGET.search(target) or any(map(_NOT_IN_A_LINE.search, lines)):
        raise ValueError("a header holds a line break, or the URL a space")
    head = "\r\n".join((f"{method} {target} HTTP/1.1", *lines, "", ""))
    return head.encode() + (body or b"")


class HTTPConnection(asyncio.Protocol):
    """A connection for one exchange after the other; `asyncio.Protocol` says when it is called.

    Whatever comes while nothing was asked closes it: it would be read as the next answer.
    ``idle_since`` is a time of the event loop.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = False
        self.is_idle = True
        self.idle_since = 0.0
        self._unsent = memoryview(b"")
        self._is_full = False
        self._reading: _Reading | None = None
        self._is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._reading is None:
            self.abort()
        else:
            self._reading.feed(data)

    def eof_received(self) -> None:  # after which asyncio closes the connection
        if self._reading is not None:
            self._reading.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._is_lost.set()
        if self._reading is not None:
            self._reading.end(exc)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._write()

    def _write(self) -> None:
        """Write the next piece of a request and, before the one after it, let others run."""
        if self._unsent and not self._is_full:
            piece, self._unsent = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self.transport.write(piece)
            if self._unsent:
                asyncio.get_running_loop().call_soon(self._write)

    async def exchange(self, request: bytes, cap: int, *, head_only: bool = False) -> Answer:
        """Send, and return the answer; without its body if ``head_only``.

        An answer is accepted before all of the request was sent. Raises `ConnectionError` where
        the server closed instead of answering, `EOFError` where the answer was cut, another
        `OSError` where the connection broke, `ValueError` for what is no HTTP. Afterwards the
        connection is idle, or closed because it cannot be used again.
        """
        if not self.is_open:
            raise ConnectionAbortedError("Server disconnected")
        self.is_idle = False
        self._reading = reading = _Reading(cap, head_only=head_only)
        try:
            self._unsent = memoryview(request)
            self._write()
            answer = await reading.finished()
            self.is_idle = reading.may_go_on and not self._unsent and not self._is_full
            self.idle_since = asyncio.get_running_loop().time()
            return answer
        finally:
            self._reading = None
            self._unsent = memoryview(b"")
            if not self.is_idle:
                self.abort()

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on in TLS with a server whose certificate is for ``name``."""
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self.transport, self, context, server_hostname=name)
        assert transport is not None
        self.transport = transport

    def abort(self) -> None:
        """Close at once, without the end of TLS: everything that was asked is answered or lost."""
        self.is_open = False
        self.transport.abort()

    async def aclose(self) -> None:
        """Close; return when the socket is closed."""
        self.abort()
        await self._is_lost.wait()


class _Reading:
    """One answer while it comes; httptools calls what begins with ``on_``.

    ``may_go_on`` says afterwards whether another request may follow on the connection.
    """

    def __init__(self, cap: int, *, head_only: bool) -> None:
        self.may_go_on = False
        self._cap = cap
        self._head_only = head_only
        self._is_over = asyncio.Event()
        self._outcome: Answer | Exception | None = None
        self._parser = HttpResponseParser(self)
        # What RFC 9112 lets a reader accept: folded lines, and those that end in LF alone.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._begin()

    def _begin(self) -> None:
        self._bytes_of_no_body = 0  # since the beginning, or since the last piece of the body
        self._has_head = False
        self._phrase = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    async def finished(self) -> Answer:
        """Return the answer once there is one, or raise what prevented it."""
        await self._is_over.wait()
        if isinstance(self._outcome, Answer):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def feed(self, data: bytes) -> None:
        """Read what has come."""
        self._bytes_of_no_body += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # what follows is another protocol
        except HttpParserError as err:
            self._finish(ValueError(f"no answer in HTTP: {err}"))
        if self._bytes_of_no_body > _MOST_HEAD_BYTES:
            part = "trailer" if self._has_head else "head"
            self._finish(ValueError(f"the {part} of the answer is too long"))

    def end(self, error: Exception | None = None) -> None:
        """Note that no more comes, which is the right end of an answer that says no length."""
        if not self._has_head:
            self._finish(error or ConnectionAbortedError("Server disconnected"))
        elif error or self._says_its_end():
            self._finish(EOFError("the answer is not complete"))
        else:
            self._finish(self._answer())

    def _says_its_end(self) -> bool:
        coding = self._headers.get("Transfer-Encoding", "")
        return "Content-Length" in self._headers or coding.lower().endswith("chunked")

    def _finish(self, outcome: Answer | Exception) -> None:
        if not self._is_over.is_set():
            self._outcome = outcome
            self._is_over.set()

    def _answer(self, *, cut: bool = False) -> Answer:
        status, phrase = self._parser.get_status_code(), self._phrase.decode("latin-1")
        return Answer(status, self._headers, bytes(self._body[: self._cap]), cut, phrase)

    def on_message_begin(self) -> None:
        self.may_go_on = False  # if it is one too many

    def on_status(self, phrase: bytes) -> None:
        self._phrase = phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if b"\0" in value:
            self._finish(ValueError("no answer in HTTP: NUL in a header"))
        if not self._has_head:
            self._headers.setdefault(name.decode("latin-1").title(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self._has_head = True
        if self._head_only and not self._is_interim():
            self.may_go_on = True
            self._finish(self._answer())

    def on_body(self, body: bytes) -> None:
        self._bytes_of_no_body = 0
        if not self._is_over.is_set():
            self._body += body
            if len(self._body) > self._cap:
                self._finish(self._answer(cut=True))

    def on_message_complete(self) -> None:
        if self._is_interim():
            self._begin()
        elif not self._is_over.is_set():
            self.may_go_on = self._parser.should_keep_alive()
            self._finish(self._answer())

    def _is_interim(self) -> bool:
        status = self._parser.get_status_code()
        return 100 <= status < 200 and status != _SWITCHING_PROTOCOLS
