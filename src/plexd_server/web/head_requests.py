"""HEAD for every GET (RFC 9110 9.3.2): the same headers, without the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """An ASGI app around another, which sees GET in place of HEAD; ``Allow`` names both.

    The server below leaves out the body, as it knows the method that was sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_allowing_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [_with_head(*each) for each in message["headers"]]
            await send(message)

        changed: Any = scope
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            changed = {**scope, "method": "GET"}
        await self._app(changed, receive, send_allowing_head)


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    methods = {each.strip() for each in value.split(b",")} if name.lower() == b"allow" else set()
    if b"GET" not in methods:
        return name, value
    return name, b", ".join(sorted({*methods, b"HEAD"}))
