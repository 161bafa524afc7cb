"""Refusals as pages for browsers, from every part of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar.enums import ScopeType

from plexd_server.web.problems import PROBLEM_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

_REPLACED: Final = frozenset({b"content-type", b"content-length", b"cache-control"})


class ErrorPages:
    """An ASGI app around another: problems become pages for clients that ask for pages.

    It is the outermost app, as some refusals reach no route. ``make_page`` gets the status, the
    title, the detail and the seconds of ``Retry-After``, empty without one.
    """

    def __init__(self, app: ASGIApp, make_page: Callable[[int, str, str, str], str]) -> None:
        self._app = app
        self._make_page = make_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back with a page in a problem's place."""
        if _asks_for_a_page(scope):
            send = _PageSender(send, self._make_page)
        await self._app(scope, receive, send)


class _PageSender:
    """Forwards an answer; a problem is held until it is whole, and sent as a page."""

    def __init__(self, send: Send, make_page: Callable[[int, str, str, str], str]) -> None:
        self._send = send
        self._make_page = make_page
        self._start: Any = None  # the start of a problem
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message["headers"]):
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message["body"]
        if message["more_body"]:
            return
        page = self._page()
        start: Any = {**self._start, "headers": _headers(self._start["headers"], page)}
        await self._send(start)
        await self._send({**message, "body": page})

    def _page(self) -> bytes:
        problem, headers = msgspec.json.decode(self._body), self._start["headers"]
        waits = [value.decode() for name, value in headers if name.lower() == b"retry-after"]
        texts = (problem["title"], problem["detail"], waits[0] if waits else "")
        return self._make_page(self._start["status"], *texts).encode()


def _asks_for_a_page(scope: Scope) -> bool:
    return (
        scope["type"] == ScopeType.HTTP
        and scope["method"] in {"GET", "HEAD"}
        and any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    )


def _is_problem(headers: Any) -> bool:
    return any(
        name.lower() == b"content-type" and value == PROBLEM_TYPE.encode()
        for name, value in headers
    )


def _headers(headers: Any, page: bytes) -> list[tuple[bytes, bytes]]:
    return [
        *((name, value) for name, value in headers if name.lower() not in _REPLACED),
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(page)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Accept"),
    ]
