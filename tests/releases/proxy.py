"""A proxy in front of a server that writes down what passes."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp import web

from plexd.closing import AsyncClosing
from releases.recordings import Asked, Exchange, asking
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from server.running import Answer
    from support.servers import Received

__all__ = ["RecordingProxy"]

_ASKED: Final = (
    *("Authorization", "Content-Type", "Content-Encoding", "User-Agent", "Cookie"),
    *("Plexd-Batch", "Plexd-After", "Plexd-Dropped", "Plexd-Features"),
)
_ANSWERED: Final = ("Content-Type", "Location", "Retry-After", "WWW-Authenticate")


class RecordingProxy(AsyncClosing):
    """Passes requests on to ``url``; an async context manager.

    What passed is in ``exchanges``. `ask` sends a request of its own through the proxy.
    """

    def __init__(self, url: str) -> None:
        self.exchanges: list[Exchange] = []
        self._upstream = url
        self._server = ScriptedServer(self._pass_on)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return self._server.url

    async def ask(self, method: str, path: str, body: str = "", **headers: str) -> Exchange:
        """Send a request and return what was written down of it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await asking(self._opened, self.url, Asked(method, path, named, body))
        return self.exchanges[-1]

    @property
    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    async def _pass_on(self, request: web.BaseRequest) -> web.Response:
        del request  # its body was read already
        asked = _asked(self._server.requests[-1])
        answer = await asking(self._opened, self._upstream, asked)
        self.exchanges.append(_exchange(asked, answer))
        headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(skip_auto_headers=["User-Agent", "Content-Type"])
        await self._server.start()
        return self

    async def aclose(self) -> None:
        await self._server.stop()
        if self._session is not None:
            await self._session.close()


def _asked(received: Received) -> Asked:
    headers = {name: received.headers[name] for name in _ASKED if name in received.headers}
    is_packed = headers.get("Content-Encoding") == "gzip"
    body = gzip.decompress(received.body) if is_packed else received.body
    return Asked(received.method, received.target, headers, body.decode())


def _exchange(asked: Asked, answer: Answer) -> Exchange:
    headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
    exchange = Exchange(asked, answer.status, headers, "")
    if exchange.is_json:
        return Exchange(asked, answer.status, headers, answer.body.decode())
    return exchange
