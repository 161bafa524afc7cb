"""How a connection is made: to which address, through which proxy, with which TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct

from plexd.api.connection import HTTPConnection, encode_request
from plexd.api.zones import with_plain_zone, without_zone

if TYPE_CHECKING:
    import ssl
    from datetime import timedelta

    from plexd.api.proxy import Proxy
    from plexd.api.trust import TrustStore

# The delay between two addresses of a name that RFC 8305, section 5 recommends.
_NEXT_ADDRESS_SECONDS: Final = 0.25
_PORTS: Final = {"http": 80, "https": 443}


class NotConnectedError(Exception):
    """There is no connection, so nothing was sent. The cause says why."""


class Place(Struct, frozen=True):
    """Where a URL leads.

    Attributes:
        host: the name or address to connect to, with its zone.
        authority: host and port as they are sent, without a zone.
        name: what the certificate has to be for.
        target: path and query, percent-escaped.
    """

    scheme: str
    host: str
    port: int
    authority: str
    name: str
    target: str

    @property
    def origin(self) -> str:
        """The place without its target."""
        return f"{self.scheme}://{self.authority}"


def place_of(url: str) -> Place:
    """Return where ``url`` leads. Raises `ValueError`, which quotes nothing, for no HTTP URL.

    One with a password is refused as well: who may ask is said in a header.
    """
    parts = urlsplit(with_plain_zone(url))
    host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    if not host or not port or "@" in parts.netloc:
        raise ValueError("not an http or https URL without a user name and a password")
    authority, name = without_zone(url) or (parts.netloc, host)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port, authority, name, target)


class Connector:
    """Makes connections, each within ``timeout``: lookup, TCP, proxy and TLS."""

    def __init__(self, trust: TrustStore, proxy: Proxy | None, timeout: timedelta) -> None:
        self._trust = trust
        self._proxy = proxy
        self._timeout = timeout

    async def connect(self, place: Place) -> HTTPConnection:
        """Return a new connection. Raises `NotConnectedError`, or `TLSError` for a bad CA file."""
        is_tls = place.scheme == "https"
        context = self._trust.context() if is_tls or self._trust.has_own_authorities else None
        limit = asyncio.timeout(self._timeout.total_seconds())
        try:
            async with limit:
                return await self._connect(place, context if is_tls else None)
        except (OSError, EOFError, ValueError) as err:  # ValueError: a name that no host can have
            late = TimeoutError(f"no connection within {self._timeout.total_seconds():g}s")
            raise NotConnectedError from (late if limit.expired() else err)

    async def _connect(self, place: Place, context: ssl.SSLContext | None) -> HTTPConnection:
        if self._proxy is None:
            return await _open(place, context)
        connection = await _open(place_of(self._proxy.url), None)
        if context is not None:
            try:
                await self._tunnel(connection, place, context, self._proxy)
            except BaseException:
                connection.abort()
                raise
        return connection

    async def _tunnel(
        self, connection: HTTPConnection, place: Place, context: ssl.SSLContext, proxy: Proxy
    ) -> None:
        """Have the proxy connect to ``place`` (RFC 9110, 9.3.6), and speak TLS with that."""
        host = f"[{place.name}]" if ":" in place.name else place.name
        address = f"{host}:{place.port}"
        asked = encode_request("CONNECT", address, {"Host": address, **proxy.headers()}, None)
        answer = await connection.exchange(asked, cap=0, head_only=True)
        if not 200 <= answer.status < 300:
            raise ConnectionRefusedError(f"{answer.phrase} (HTTP {answer.status})")
        await connection.start_tls(context, place.name)


async def _open(place: Place, context: ssl.SSLContext | None) -> HTTPConnection:
    # A name may have several addresses to try. Where that is cancelled, asyncio leaves it to the
    # garbage collector to close a socket that has just been connected, so an address is not raced.
    is_name = ":" not in place.host and not place.host.replace(".", "").isdigit()
    _, connection = await asyncio.get_running_loop().create_connection(
        HTTPConnection,
        place.host,
        place.port,
        ssl=context,
        server_hostname=place.name if context is not None else None,
        happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS if is_name else None,
    )
    return connection
