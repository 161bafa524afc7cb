"""The Host check of every request, and the security headers of every answer.

The Host check keeps a foreign web page from reaching a server on loopback by pointing its own
name at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

from litestar.enums import ScopeType

from plexd_server.web.problems import Problem, send_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# They say nothing of the mesh, and who checks health uses the address of a pod, or HTTP/1.0.
HEALTH_PATHS: Final = frozenset({"/healthz", "/livez", "/readyz"})

# Scripts and style sheets come from this server only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_FOREIGN_HOST: Final = Problem(
    421, "this host is not served here; the operator can allow it (--allowed-host)"
)


class Guard:
    """An ASGI app around another: foreign hosts get 421, every answer the headers."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._allowed = LOOPBACK_NAMES | {host_name(host) for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it for its Host."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        if self._is_for_us(scope):
            await self._app(scope, receive, send_guarded)
        else:
            await send_problem(_FOREIGN_HOST, send_guarded)

    def _is_for_us(self, scope: Scope) -> bool:
        if scope["path"] in HEALTH_PATHS:
            return True
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and host_name(hosts[0].decode("latin-1")) in self._allowed


def host_name(authority: str) -> str:
    """Return the name in ``name:port`` in its usual form; an IPv6 address keeps its brackets.

    One host has many spellings: capitals, a dot at the end (RFC 1034 3.1), an IPv6 address with its
    zeros (RFC 5952), an IPv4 address as an IPv6 one.
    """
    name, colon, port = authority.rpartition(":")
    if not colon or (not port.isdigit() and port):
        name = authority
    if name.startswith("[") and name.endswith("]"):
        return _usual_ipv6(name.lower())
    return name.lower().removesuffix(".")


def _usual_ipv6(literal: str) -> str:
    try:
        address = IPv6Address(literal[1:-1])
    except ValueError:
        return literal
    return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
