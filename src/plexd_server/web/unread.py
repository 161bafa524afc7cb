"""Answers that wait for their clients to read them, within bounds of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar.enums import ScopeType

from plexd_server.web.problems import RETRY_SOON, Problem, send_problem
from plexd_server.web.shares import Shares, sender_in

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

_TOTAL_BYTES: Final = 128 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
_SMALL_BYTES: Final = 4 * 1024
_TOO_MUCH: Final = Problem(503, "too many answers are not read", headers=RETRY_SOON)


class UnreadAnswers:
    """An ASGI app around another, whose answers go out in pieces, each when the last one has gone.

    So a request is under way until the kernel has its whole answer, and is bounded as all requests
    are (`limits.InFlight`). The bytes of answers of more than a piece are bounded as well:
    ``total_bytes`` in all, and one sender has at most as many as it leaves free. One answer more is
    a 503.
    """

    def __init__(self, app: ASGIApp, *, total_bytes: int = _TOTAL_BYTES) -> None:
        self._app = app
        self._shares = Shares(total_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        answer = _UnreadAnswer(send, self._shares, sender_in(scope))
        try:
            await self._app(scope, receive, answer.send)
        finally:
            answer.end()


class _UnreadAnswer:
    """One answer; its start is held until its first body says how large it is."""

    def __init__(self, send: Send, shares: Shares, sender: str) -> None:
        self._send = send
        self._shares = shares
        self._sender = sender
        self._start: Any = None
        self._reserved = 0
        self._is_refused = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif not self._is_refused and self._reserve(len(message["body"])):
            await self._send_start()
            await self._send_body(message["body"], is_last=not message.get("more_body"))
        elif not self._is_refused:
            self._is_refused = True
            await self._refuse()

    def end(self) -> None:
        """Give back the bytes, whatever has become of them."""
        self._shares.give_back(self._sender, self._reserved)
        self._reserved = 0

    def _reserve(self, size: int) -> bool:
        if size <= _PIECE_BYTES:
            return True
        if not self._shares.take(self._sender, size):
            return False
        self._reserved += size
        return True

    async def _refuse(self) -> None:
        """Send the refusal; an answer that has begun stays without its end, which closes it."""
        if self._start is not None:
            await send_problem(_TOO_MUCH, self._send)

    async def _send_start(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)

    async def _send_body(self, body: bytes, *, is_last: bool) -> None:
        if len(body) <= _SMALL_BYTES:
            await self._send(_body(body, is_last=is_last))
            return
        for first in range(0, len(body), _PIECE_BYTES):
            await self._send(_body(body[first : first + _PIECE_BYTES], is_last=False))
        if is_last:  # it is passed on when the kernel has all the others
            await self._send(_body(b"", is_last=True))


def _body(body: bytes, *, is_last: bool) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}
