"""Which site made a browser send a request: one of our own pages, or somebody else's.

``Sec-Fetch-Site`` (W3C Fetch Metadata) is the browser's own word, which no page can change. Over
plain HTTP beyond loopback browsers leave it out; then ``Origin`` (RFC 6454) is compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from plexd_server.web.guard import host_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar import Request

_OWN_SITES: Final = frozenset({"same-origin", "none"})  # none: typed, or from a bookmark
_PORTS: Final = {"http": "80", "https": "443"}


class OwnOrigins:
    """The origins of our own pages: the name and port of ``Host``, and the names we are given.

    A proxy may put another name into ``Host``; then only ``names`` can tell. The port is compared
    where ``Host`` has one, and the scheme where we know that the browser speaks HTTPS: a proxy that
    is not trusted may end TLS in front of us.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(host_name(name) for name in names)

    def is_foreign(self, request: Request[Any, Any, Any]) -> bool:
        """Whether another origin's page made the browser ask; false if the browser says nothing."""
        if sites := request.headers.getall("sec-fetch-site", []):
            return not _OWN_SITES.issuperset(sites)
        origins = request.headers.getall("origin", [])
        return bool(origins) and not self._are_own(request, origins)

    def is_own(self, request: Request[Any, Any, Any]) -> bool:
        """Whether one of our own pages made the browser ask; false if the browser says nothing."""
        sites = request.headers.getall("sec-fetch-site", ["same-origin"])
        origins = request.headers.getall("origin", [])
        return sites == ["same-origin"] and self._are_own(request, origins)

    def _are_own(self, request: Request[Any, Any, Any], origins: list[str]) -> bool:
        try:
            scheme, netloc, *_ = urlsplit(origins[0] if len(origins) == 1 else "")
        except ValueError:
            return False
        if scheme not in _PORTS or (request.scope.get("scheme") == "https" and scheme == "http"):
            return False
        host = request.headers.get("host", "")
        if host_name(netloc) != host_name(host):
            return host_name(netloc) in self._names
        return _port(host, "") in {"", _port(netloc, _PORTS[scheme])}


def _port(authority: str, default: str) -> str:
    _, colon, port = authority.rpartition(":")
    return port if colon and port.isdigit() else default
