"""Values of options, parsed. Every function raises `ValueError` with a sentence."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plexd import units

if TYPE_CHECKING:
    from plexd_server.web.listeners import Address, UnixPath

_MAX_PORT: Final = 65_535
_MAX_DURATION: Final = timedelta(days=3660)
_LEAST_RETENTION: Final = timedelta(hours=1)
_DEFAULT_ROLLUPS: Final = timedelta(days=5 * 365)
_MAX_RATE: Final = 1e6
_MAX_FOREIGN_PEERS: Final = 100_000
_BASE_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", re.ASCII)


def parse_duration(option: str, text: str) -> timedelta:
    """Parse ``90s``, ``1h30m`` or ``30d``: more than zero, at most ten years."""
    try:
        duration = units.parse_duration(text)
    except ValueError:
        raise ValueError(f"{option} {text!r} is no duration, such as 90s, 1h30m or 30d") from None
    if not duration:
        raise ValueError(f"{option} must be more than 0")
    if duration > _MAX_DURATION:
        raise ValueError(f"{option} {text!r} is too long, at most {_MAX_DURATION.days}d")
    return duration


def parse_retention(text: str) -> timedelta:
    """Parse how long points are kept: an hour at least."""
    retention = parse_duration("--retention", text)
    if retention < _LEAST_RETENTION:
        raise ValueError(
            f"--retention {text!r} is too short, at least 1h: points that wait on a node through "
            "an outage would be let go as they arrive"
        )
    return retention


def parse_retention_rollups(text: str | None, retention: timedelta) -> timedelta:
    """Parse how long rollups are kept: as long as their points at least, and by default so."""
    if text is None:
        return max(_DEFAULT_ROLLUPS, retention)
    rollups = parse_duration("--retention-rollups", text)
    if rollups < retention:
        raise ValueError(
            f"--retention-rollups {text!r} is shorter than --retention; rollups are for the time "
            "after that"
        )
    return rollups


def parse_host(text: str) -> str:
    """Check a name as in a request's ``Host``, without the port."""
    if not _HOST.fullmatch(text):
        raise ValueError(
            f"--allowed-host {text!r} is no name or address without scheme and port, such as "
            "plane.example, 192.0.2.1 or [2001:db8::1]"
        )
    return text


def parse_mesh_ip(text: str) -> str:
    """Return an address in its usual form; empty for none. Raises `NodeConflict` for unfit ones."""
    from plexd_server.registry import parse_address, refuse_unfit  # noqa: PLC0415 -- as below

    try:
        address = parse_address(text)
    except ValueError:
        raise ValueError(f"--mesh-ip {text!r} is no IP address, such as 10.42.0.7") from None
    if address:
        refuse_unfit(address, "")
    return address


def parse_network(text: str) -> str:
    """Return a network in its usual form; empty for none. Raises `NodeConflict` for unfit ones."""
    from plexd_server.registry import refuse_unfit_network  # noqa: PLC0415 -- as below

    if not text:
        return ""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"--mesh-network {text!r} is no network, such as 10.99.0.0/16") from None
    refuse_unfit_network(network)
    return str(network)


def parse_proxies(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Parse a network of proxies that are believed; None for ``unix``."""
    from plexd_server.auth import proxies  # noqa: PLC0415 -- only what a command needs

    try:
        return proxies.parse_proxies(text)
    except ValueError:
        raise ValueError(
            f"--trusted-proxy {text!r} is no network of proxies, such as 10.0.0.0/8, 192.0.2.1 or "
            "unix; one of all addresses would let each client choose its own"
        ) from None


def parse_rate(number: float) -> float:
    """Check a number of requests a second; 0 is no limit."""
    if not 0 <= number < _MAX_RATE:
        raise ValueError(f"--node-rate {number:g} is no number of requests a second, such as 50")
    return number


def parse_foreign_peers(number: int) -> int:
    """Check how many peers of a node that are no nodes are kept."""
    if not 0 <= number <= _MAX_FOREIGN_PEERS:
        raise ValueError(
            f"--foreign-peers {number} is no number of peers, such as 1024; "
            f"at most {_MAX_FOREIGN_PEERS}"
        )
    return number


def parse_size(text: str) -> str:
    """Check a size in a form that DuckDB accepts: KB of 1,000 bytes or KiB of 1,024."""
    if not re.fullmatch(r"\d+(\.\d+)? ?[KMGT]i?B", text, re.IGNORECASE | re.ASCII):
        raise ValueError(f"--store-memory {text!r} is no size, such as 256MB")
    return text


def parse_listen(text: str) -> Address | UnixPath:
    """Parse ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT`` or ``unix:/PATH``."""
    from plexd_server.web.listeners import Address, UnixPath  # noqa: PLC0415 -- only what is needed

    if text.startswith("unix:"):
        return UnixPath(_parse_socket_path(text))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(
            f"--listen {text!r} is not HOST:PORT or unix:/PATH, such as 127.0.0.1:8080"
        )
    return Address(host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port))  # noqa: S104 -- asked for


def _parse_socket_path(text: str) -> Path:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError(
            f"--listen {text!r} is no absolute path, such as unix:/run/plexd-server/socket"
        )
    return Path(path)


def parse_base_path(text: str) -> str:
    """Parse the path below which a proxy serves this server; empty for none."""
    path = text.rstrip("/")
    segments = path.split("/")[1:]
    if path and (not _BASE_PATH.fullmatch(path) or {".", ".."}.intersection(segments)):
        raise ValueError(
            f"--base-path {text!r} is no path of letters, digits and . _ ~ -, such as /plexd"
        )
    return path
