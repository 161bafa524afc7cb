"""Refusals as pages for browsers, from every part of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar.enums import ScopeType

from plexd_server.dashboard.pages import login_page, not_found_page, refusal_page
from plexd_server.web.problems import PROBLEM_TYPE

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ErrorPages"]

_REPLACED: Final = frozenset({b"content-type", b"content-length", b"cache-control"})
_PAGES: Final = {401: login_page, 404: not_found_page}


class ErrorPages:
    """An ASGI app around another: problems become pages for clients that ask for pages.

    It is the outermost app, as some refusals reach no route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back with a page in a problem's place."""
        await self._app(scope, receive, _PageSender(send) if _asks_for_a_page(scope) else send)


class _PageSender:
    """Forwards an answer; a problem is held until it is whole, and sent as a page."""

    def __init__(self, send: Send) -> None:
        self._send = send
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
        page = _page(self._start, self._body)
        start: Any = {**self._start, "headers": _headers(self._start["headers"], page)}
        await self._send(start)
        await self._send({**message, "body": page})


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


def _page(start: Any, body: bytes) -> bytes:
    if start["status"] in _PAGES:
        return _PAGES[start["status"]]().encode()
    problem = msgspec.json.decode(body)
    waits = [value.decode() for name, value in start["headers"] if name.lower() == b"retry-after"]
    return refusal_page(problem["title"], problem["detail"], *waits).encode()


def _headers(headers: Any, page: bytes) -> list[tuple[bytes, bytes]]:
    return [
        *((name, value) for name, value in headers if name.lower() not in _REPLACED),
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(page)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Accept"),
    ]
