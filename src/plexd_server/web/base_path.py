"""A server below a path of another one, such as ``https://example.org/plexd/``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from litestar.enums import ScopeType

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

_LINK: Final = re.compile(rb'((?:href|src)="|;url=)/(?!/)')
_COOKIE_PATH: Final = re.compile(rb"(;\s*path=)/(?=;|$)", re.IGNORECASE)
_HTML: Final = b"text/html"


class BasePath:
    """An ASGI app around another, which knows nothing of the path.

    It is taken off requests, and put before the links of pages, redirects and paths of cookies. A
    proxy in front may pass it on or take it off. ``base`` is empty, or begins with a slash and does
    not end with one.
    """

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app = app
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on without the path, and its answer back with it."""
        if not self._base or scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
        elif scope["path"] == self._base and scope["method"] in {"GET", "HEAD"}:
            await _redirect(scope, self._base, send)
        else:
            await self._app(self._inside(scope), receive, _Below(send, self._base.encode()))

    def _inside(self, scope: Any) -> Any:
        path, raw = scope["path"], scope["raw_path"].decode("latin-1")
        if path.startswith(f"{self._base}/"):
            path = path.removeprefix(self._base)
            is_plain = raw.startswith(f"{self._base}/")  # or it has percent signs in it
            raw = raw.removeprefix(self._base) if is_plain else quote(path)
        return {**scope, "path": path, "raw_path": raw.encode("latin-1")}


async def _redirect(scope: Scope, base: str, send: Send) -> None:
    """Add the slash at the end."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    location = base.encode() + b"/" + query
    headers = [(b"location", location), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Below:
    """Forwards an answer; a page is held until it is whole, to put the path into its links."""

    def __init__(self, send: Send, base: bytes) -> None:
        self._send = send
        self._base = base
        self._start: Any = None  # the start of a page
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._go_on(message)

    async def _begin(self, message: Any) -> None:
        headers = [(name, self._below(name.lower(), value)) for name, value in message["headers"]]
        message = {**message, "headers": headers}
        if any(_is_page(*each) for each in headers):
            self._start = message
        else:
            await self._send(message)

    def _below(self, name: bytes, value: bytes) -> bytes:
        if name == b"location" and value.startswith(b"/"):
            return value if value.startswith(self._base + b"/") else self._base + value
        if name == b"set-cookie":
            return _COOKIE_PATH.sub(rb"\1" + self._base, value)
        return value

    async def _go_on(self, message: Any) -> None:
        self._body += message["body"]
        if message.get("more_body"):
            return
        page = _LINK.sub(rb"\1" + self._base + rb"/", self._body)
        length = (b"content-length", str(len(page)).encode())
        others = [each for each in self._start["headers"] if each[0].lower() != length[0]]
        start: Any = {**self._start, "headers": [*others, length]}
        whole: Any = {**message, "body": page}
        await self._send(start)
        await self._send(whole)


def _is_page(name: bytes, value: bytes) -> bool:
    return name.lower() == b"content-type" and value.startswith(_HTML)
