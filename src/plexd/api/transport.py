"""One HTTP client for everything the agent sends, which translates aiohttp's errors.

Promises: TLS 1.2 or newer; redirects are never followed, so that no credential travels to another
host; the environment (proxies, netrc) is ignored; cookies are not kept; answers are
read to a cap, their heads to 64 KiB. aiohttp is imported on first use, since loading it takes
longer than a collection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import partial
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from plexd.api.answers import one_line
from plexd.api.diagnosis import (
    MAYBE_HTTPS,
    is_of_another_name,
    names_shown,
    why_no_handshake,
    why_not_accepted,
)
from plexd.api.errors import TLSError, TransportError
from plexd.api.trust import Trust, TrustStore
from plexd.api.zones import with_plain_zone, without_zone
from plexd.clock import SystemClock
from plexd.closing import AsyncClosing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import timedelta

    import aiohttp

    from plexd.api.proxy import Proxy

# Longer than any usual report interval, so that a report finds its connection still open.
_KEEPALIVE_SECONDS = 300.0
_CONNECTIONS = 8
_LARGE = 2**20


class Answer(Struct, frozen=True):
    """A complete answer. ``body`` is cut, and ``cut`` is true, where it went beyond the cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool


class HTTPTransport(AsyncClosing):
    """A lazily opened keep-alive client; safe for concurrent requests of one event loop.

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
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._session: aiohttp.ClientSession | None = None
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
        import aiohttp  # noqa: PLC0415  # loaded on first use, see above

        if self._closed:
            raise RuntimeError("this client has been closed")
        url = with_plain_zone(url)
        place = f"{method} {_origin(url)}"
        try:
            async with asyncio.timeout(self._request_timeout.total_seconds()):
                send = partial(self._send, method, url, headers, body, cap)
                return await self._at_most_twice(send, repeatable=repeatable)
        except aiohttp.ClientSSLError as err:
            names = ""
            if is_of_another_name(getattr(err, "certificate_error", None)) and not self._proxy:
                names = await names_shown(url, self._trust.fresh_context())
            raise TLSError(_tls_reason(err) + names, place, was_connected=False) from err
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ClientHttpProxyError,
            aiohttp.ConnectionTimeoutError,
        ) as err:
            # Chained past aiohttp's error: that of a proxy shows the headers with its password.
            raise TransportError(
                self._why_unreached(err), place, was_connected=False
            ) from err.__cause__
        except TimeoutError as err:
            reason = f"no complete answer {_within(self._request_timeout)}"
            raise TransportError(reason, place) from err
        except aiohttp.ClientResponseError as err:
            # Chained past aiohttp's error, whose repr shows the request's headers and the token.
            raise TransportError(_reason(err), place) from err.__cause__
        except (aiohttp.ServerDisconnectedError, ConnectionResetError) as err:
            # A TLS server closes so, too; one that answered before was only restarted.
            is_new = url.startswith("http:") and not self._was_answered
            raise TransportError(_reason(err) + MAYBE_HTTPS * is_new, place) from err
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise TransportError(_reason(err), place) from err

    async def _at_most_twice(
        self, send: Callable[[SimpleNamespace], Awaitable[Answer]], *, repeatable: bool
    ) -> Answer:
        import aiohttp  # noqa: PLC0415  # loaded on first use, see above

        connection = SimpleNamespace(reused=False)
        try:
            return await send(connection)
        except aiohttp.ClientSSLError:  # so nothing was sent
            if not self._trust.renew():
                raise
        except (aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError):
            if self._closed or not (repeatable and connection.reused):
                raise
        return await send(SimpleNamespace())

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        cap: int,
        connection: SimpleNamespace,
    ) -> Answer:
        from yarl import URL  # noqa: PLC0415  # comes with aiohttp

        shown = without_zone(url)
        async with self._open().request(
            method,
            URL(url, encoded=True),
            headers={
                **headers,
                **({} if shown is None else {"Host": shown[0]}),
                **self._for_proxy(url, tunnelled=False),
            },
            server_hostname=None if shown is None else shown[1],
            data=_in_chunks(body),
            allow_redirects=False,
            ssl=self._tls(url),
            trace_request_ctx=connection,
            proxy=self._proxy.url if self._proxy is not None else None,
            proxy_headers=self._for_proxy(url, tunnelled=True),
        ) as response:
            self._was_answered = True
            content, cut = await _read(response, cap)
            return Answer(response.status, response.headers, content, cut)

    def _for_proxy(self, url: str, *, tunnelled: bool) -> dict[str, str]:
        """Return the proxy's headers, of the request or else of the one that opens a tunnel."""
        is_tunnelled = url.startswith("https:")
        return self._proxy.headers() if self._proxy and tunnelled == is_tunnelled else {}

    def _tls(self, url: str) -> ssl.SSLContext | Literal[True]:
        """Return the context for ``url``, made when first needed to save memory."""
        is_needed = url.startswith("https:") or self._trust.has_own_authorities
        return self._trust.context() if is_needed else True

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._make_session()
        return self._session

    def _make_session(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415  # loaded on first use, see above

        from plexd.api.head import MOST_HEAD_BYTES, BoundedResponse  # noqa: PLC0415  # the same

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                keepalive_timeout=_KEEPALIVE_SECONDS,
                # Connections are rare, and most new ones are made because a name has moved.
                use_dns_cache=False,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._connect_timeout.total_seconds()
            ),  # the total is kept in `request`, which may send twice
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            response_class=BoundedResponse,
            # No line or field reaches the bound of the whole head, and no count of them either: a
            # field has four bytes at least.
            max_line_size=MOST_HEAD_BYTES,
            max_field_size=MOST_HEAD_BYTES,
            max_headers=MOST_HEAD_BYTES // 4,
            trace_configs=[self._trace()],
        )

    def _trace(self) -> aiohttp.TraceConfig:
        import aiohttp  # noqa: PLC0415  # loaded on first use, see above

        async def made(*_: object) -> None:
            self.connections += 1

        async def reused(_session: object, context: Any, _params: object) -> None:
            context.trace_request_ctx.reused = True

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(made)
        trace.on_connection_reuseconn.append(reused)
        return trace

    def _why_unreached(self, err: aiohttp.ClientError) -> str:
        """Return why there is no connection, naming the proxy that was to make it."""
        import aiohttp  # noqa: PLC0415  # loaded on first use, see above

        reason = _reason(err)
        if isinstance(err, aiohttp.ConnectionTimeoutError):
            reason = f"no connection {_within(self._connect_timeout)}"
        if isinstance(err, aiohttp.ClientHttpProxyError):
            reason = f"{reason} (HTTP {err.status})"
        return f"the proxy {self._proxy.url}: {reason}" if self._proxy else reason

    async def aclose(self) -> None:
        """Close every connection; idempotent. Requests under way fail."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _in_chunks(body: bytes | None) -> bytes | BytesIO | None:
    """Wrap bytes beyond a megabyte so that they are written in pieces and other tasks run."""
    return BytesIO(body) if body is not None and len(body) > _LARGE else body


async def _read(response: aiohttp.ClientResponse, cap: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > cap:
            response.close()  # the rest is never read, so the connection is of no further use
            return bytes(body[:cap]), True
    return bytes(body), False


def _origin(url: str) -> str:
    """Return scheme, host and port only: a URL may hold a password or a secret path."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"


def _tls_reason(err: aiohttp.ClientSSLError) -> str:
    cause: BaseException | None = getattr(err, "certificate_error", None) or err.__cause__ or err
    if isinstance(cause, ssl.SSLCertVerificationError):
        return why_not_accepted(cause, SystemClock().now())
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return why_no_handshake(cause)
    return f"TLS handshake failed: {cause}"


def _reason(err: BaseException) -> str:
    """Return one printable line, without the URL that aiohttp adds for a garbled answer."""
    inner = getattr(err, "os_error", None) or err
    if isinstance(inner, ConnectionResetError):
        return "connection reset"
    if isinstance(inner, OSError) and inner.errno and not isinstance(inner, socket.gaierror):
        return os.strerror(inner.errno)  # asyncio puts a text of its own in its place
    said = getattr(inner, "strerror", None) or getattr(inner, "message", None) or str(inner)
    return one_line(str(said)) or type(inner).__name__


def _within(limit: timedelta) -> str:
    return f"within {limit.total_seconds():g}s"
