"""One HTTP client for everything the agent sends: how a request gets its answer, or why not.

Promises: TLS 1.2 or newer; redirects are never followed, so that no credential travels to another
host; the environment (proxies, netrc) is ignored; cookies are not kept; answers are
read to a cap, their heads to 64 KiB.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from plexd.api.answers import one_line
from plexd.api.connection import Answer, HTTPConnection, encode_request
from plexd.api.connector import Connector, NotConnectedError, Place, place_of
from plexd.api.diagnosis import (
    MAYBE_HTTPS,
    is_of_another_name,
    names_shown,
    why_no_handshake,
    why_not_accepted,
)
from plexd.api.errors import TLSError, TransportError
from plexd.api.trust import Trust, TrustStore
from plexd.api.zones import with_plain_zone
from plexd.clock import SystemClock
from plexd.closing import AsyncClosing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from plexd.api.proxy import Proxy

# Longer than any usual report interval, so that a report finds its connection still open.
_KEEPALIVE_SECONDS: Final = 300.0
_CONNECTIONS: Final = 8
_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


class HTTPTransport(AsyncClosing):
    """A keep-alive client, safe for concurrent requests of one event loop.

    ``connect_timeout`` bounds getting a connection (lookup, TCP, TLS), ``request_timeout`` the
    whole exchange. ``connections`` counts those that were made so far. Every request goes through
    the ``proxy`` if there is one. Authorities are read again after a certificate was refused; if
    they are others by then, the request is repeated at once.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        trust: Trust,
        connect_timeout: timedelta,
        request_timeout: timedelta,
        proxy: Proxy | None = None,
    ) -> None:
        self._user_agent = user_agent
        self._trust = TrustStore(trust)
        self._proxy = proxy
        self._connector = Connector(self._trust, proxy, connect_timeout)
        self._request_timeout = request_timeout
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._open: dict[HTTPConnection, str] = {}
        self._closed = False
        self._was_answered = False
        self.connections = 0

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        cap: int,
        repeatable: bool = True,
    ) -> Answer:
        """Send and read one answer, whatever its status; ``url`` is already percent-escaped.

        A kept connection that the server had closed meanwhile is replaced once, within the same
        ``request_timeout``, but only if the request is ``repeatable``: the server may have acted
        on it before closing. Raises `TLSError` or `TransportError` with the cause chained; at
        most ``cap`` bytes of the answer are kept.
        """
        if self._closed:
            raise RuntimeError("this client has been closed")
        where = f"{method} {_origin(url)}"
        limit = asyncio.timeout(self._request_timeout.total_seconds())
        try:
            async with limit, self._slots:
                place = place_of(url)
                request = self._encode(method, place, headers, body)
                answer = await self._exchange(place, request, cap, repeatable=repeatable)
        except NotConnectedError as err:
            raise await self._why_unreached(err.__cause__, url, where) from err.__cause__
        except ConnectionError as err:
            # A TLS server closes so, too; one that answered before was only restarted.
            is_new = url.startswith("http:") and not self._was_answered
            raise TransportError(_reason(err) + MAYBE_HTTPS * is_new, where) from err
        except (OSError, EOFError, ValueError) as err:
            late = f"no complete answer within {self._request_timeout.total_seconds():g}s"
            raise TransportError(late if limit.expired() else _reason(err), where) from err
        self._was_answered = True
        return answer

    def _encode(
        self, method: str, place: Place, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        sent = {
            "Host": place.authority,
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        if self._proxy is None or place.scheme == "https":
            return encode_request(method, place.target, sent, body)
        sent |= self._proxy.headers()
        return encode_request(method, place.origin + place.target, sent, body)

    async def _exchange(
        self, place: Place, request: bytes, cap: int, *, repeatable: bool
    ) -> Answer:
        kept = self._kept(place)
        if kept is not None:
            try:
                return await kept.exchange(request, cap)
            except OSError:  # it broke before there was an answer
                if self._closed or not repeatable:
                    raise
        try:
            connection = await self._connect(place)
        except NotConnectedError as err:
            if not isinstance(err.__cause__, ssl.SSLError) or not self._trust.renew():
                raise
            connection = await self._connect(place)
        return await connection.exchange(request, cap)

    def _kept(self, place: Place) -> HTTPConnection | None:
        """Return an open connection that nobody uses, and forget those that are closed."""
        oldest = asyncio.get_running_loop().time() - _KEEPALIVE_SECONDS
        for connection, origin in list(self._open.items()):
            if not connection.is_open:
                del self._open[connection]
            elif connection.is_idle and connection.idle_since < oldest:
                connection.abort()
            elif connection.is_idle and origin == place.origin:
                return connection
        return None

    async def _connect(self, place: Place) -> HTTPConnection:
        connection = await self._connector.connect(place)
        if self._closed:
            connection.abort()
            raise ConnectionAbortedError("this client has been closed")
        self.connections += 1
        self._open[connection] = place.origin
        return connection

    async def _why_unreached(
        self, err: BaseException | None, url: str, where: str
    ) -> TransportError:
        """Return why there is no connection, naming the proxy that was to make it."""
        if isinstance(err, ssl.SSLError):
            names = ""
            if is_of_another_name(err) and not self._proxy:
                names = await names_shown(with_plain_zone(url), self._trust.fresh_context())
            return TLSError(_reason(err) + names, where, was_connected=False)
        through = f"the proxy {self._proxy.url}: " if self._proxy else ""
        return TransportError(through + _reason(err), where, was_connected=False)

    async def aclose(self) -> None:
        """Close every connection; idempotent. Requests under way fail."""
        self._closed = True
        connections, self._open = self._open, {}
        for connection in connections:
            await connection.aclose()


def _origin(url: str) -> str:
    """Return scheme, host and port only: a URL may hold a password or a secret path."""
    parts = urlsplit(with_plain_zone(url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _reason(err: BaseException | None) -> str:
    """Return one printable line."""
    if isinstance(err, ssl.SSLError):
        return _tls_reason(err)
    if isinstance(err, ConnectionResetError):
        return "connection reset"
    if isinstance(err, OSError) and not isinstance(err, socket.gaierror):
        # asyncio has texts of its own beside the numbers, and joins those of several addresses.
        numbers = dict.fromkeys(_NUMBER.findall(str(err)))
        if numbers:
            return ", ".join(os.strerror(int(number)) for number in numbers)
    return one_line(getattr(err, "strerror", None) or str(err)) or type(err).__name__


def _tls_reason(err: ssl.SSLError) -> str:
    if isinstance(err, ssl.SSLCertVerificationError):
        return why_not_accepted(err, SystemClock().now())
    return why_no_handshake(err) if err.reason else f"TLS handshake failed: {err}"
