"""The client behind a proxy: what a proxy that we trust says of it, and nobody else.

A proxy appends whom it heard to what it was sent, so the end of a list is the proxy's word and
its beginning the client's. The list is read from its end to the first address that is no trusted
proxy. What is no address ends it: the client is then the last proxy that could be read.

``X-Forwarded-For`` and ``X-Forwarded-Proto`` are conventions without a standard; ``Forwarded`` is
RFC 7239. A proxy usually sets one and passes the other on as the client sent it, so ``Forwarded``
counts only where the older header is missing.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litestar.enums import ScopeType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from litestar.types import ASGIApp, Receive, Scope, Send

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
    IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOPS: Final = 32  # nobody has as many proxies; a client can send thousands of addresses
_MAPPED_BITS: Final = 96  # before an IPv4 address in IPv6 form
_SCHEMES: Final = frozenset({"http", "https"})
_PORT = r"(?::(?:\d{1,5}|_[\w.-]+))?"
_NODE = re.compile(rf"\[([^\[\]]+)\]{_PORT}|([\d.]+){_PORT}|([\da-fA-F:.]+(?:%[^\s%]*)?)", re.ASCII)
_PAIR = re.compile(r"\s*([!#$%&'*+.^`|~\w-]+)=(?:\"([^\"\\]*)\"|([^\s\";=]+))\s*", re.ASCII)


class Hop(NamedTuple):
    """One entry of a proxy's list: whom it heard, and by which scheme. Empty: it does not say."""

    client: str
    scheme: str


class BehindProxies:
    """An ASGI app around another, which sees the client and its scheme in place of the proxy's.

    ``trusted`` are networks of proxies; None among them is whoever connects by a Unix socket.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[Network | None]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its client's address and scheme."""
        if scope["type"] == ScopeType.HTTP and self._trusted:
            scope = self._behind(scope)
        await self._app(scope, receive, send)

    def _behind(self, scope: Any) -> Any:
        client = scope["client"]
        proxy = parse_client(client[0]) if client else None
        if not self._is_trusted(proxy) or (client and proxy is None):
            return scope
        found, scheme = self._client(proxy, hops(scope["headers"]))
        changed: dict[str, Any] = {"client": found and (str(found), 0)}
        if scheme in _SCHEMES:
            changed["scheme"] = scheme
        return {**scope, **changed}

    def _client(
        self, proxy: IPAddress | None, reported: Iterator[Hop]
    ) -> tuple[IPAddress | None, str]:
        """Return the last address that is no trusted proxy, and the scheme it used."""
        scheme = ""
        for hop in islice(reported, _HOPS):
            scheme = hop.scheme
            address = parse_client(hop.client)
            if address is None:
                break
            proxy = address
            if not self._is_trusted(address):
                break
        return proxy, scheme

    def _is_trusted(self, address: IPAddress | None) -> bool:
        if address is None:
            return None in self._trusted
        return _is_among(address, self._trusted)


def is_proxy(host: str, trusted: Iterable[Network | None]) -> bool:
    """Return whether the address that connects belongs to one of the proxies."""
    address = parse_client(host)
    return address is not None and _is_among(address, trusted)


def _is_among(address: IPAddress, trusted: Iterable[Network | None]) -> bool:
    return any(network is not None and address in network for network in trusted)


def hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Hop]:
    """Yield what the headers say, the nearest proxy's word first."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.decode("latin-1"))
    reported: Iterator[Hop] = map(_parse_forwarded, _from_end(found.get(b"forwarded", [])))
    clients, schemes = found.get(b"x-forwarded-for"), found.get(b"x-forwarded-proto")
    if clients is not None:
        reported = (Hop(client, "") for client in _from_end(clients))
    if schemes is None:
        return reported
    # Most proxies replace this header: then there is one for all hops.
    found_schemes = [scheme.lower() for scheme in _from_end(schemes)] or [""]
    padded = chain(reported, [Hop("", "")])
    return (
        Hop(hop.client, scheme)
        for hop, scheme in zip(
            padded, chain(found_schemes, repeat(found_schemes[-1])), strict=False
        )
    )


def parse_client(text: str) -> IPAddress | None:
    """Return the address in ``text``, which may have a port, brackets and a zone; None for others.

    An IPv4 address in IPv6 form is the IPv4 address: a listener of both families shows it so.
    """
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        address = ipaddress.ip_address((found[1] or found[2] or found[3]).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_proxies(text: str) -> Network | None:
    """Return a network of proxies, None for ``unix``. Raises `ValueError` for anything else.

    A network of everybody is refused: each client could choose its address.
    """
    if text == "unix":
        return None
    network = ipaddress.ip_network(text)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        network = ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))
    if not network.prefixlen:
        raise ValueError("this is everybody")
    return network


def _from_end(lines: list[str]) -> Iterator[str]:
    """Yield the elements of a list that came in these lines (RFC 9110, 5.3), the last first."""
    for line in reversed(lines):
        for element in reversed(line.split(",")):
            if stripped := element.strip(" \t"):
                yield stripped


def _parse_forwarded(element: str) -> Hop:
    """Parse an element; one that is not whole says nothing.

    The list is cut at every comma, so a comma in quotes spoils its own element. Otherwise a client
    could open a quote that swallows what the proxies append.
    """
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[1].lower() in pairs:
            return Hop("", "")
        pairs[pair[1].lower()] = pair[2] if pair[2] is not None else pair[3]
    return Hop(pairs.get("for", ""), pairs.get("proto", "").lower())
