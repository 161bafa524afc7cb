"""Zones in the addresses of URLs: the interface by which a link-local address is reached.

In a URL the sign before a zone is written ``%25``, ``http://[fe80::1%25eth0]:8081`` (RFC 6874);
people write ``%`` as well, and so do system calls. A zone means something on this machine only, so
it is neither sent in a request nor part of the name in a certificate (section 4 there).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

_ZONED = re.compile(r"(\w+://\[[\da-f:.]+)%(?!25\])(?:25)?([\w.~-]+)\]", re.ASCII | re.IGNORECASE)


def with_plain_zone(url: str) -> str:
    """Return ``url`` with its zone, if it has one, in the form that connecting needs."""
    return _ZONED.sub(r"\1%\2]", url, count=1) if _ZONED.match(url) else url


def without_zone(url: str) -> tuple[str, str] | None:
    """Return host and port as they are sent, and the address; None for a URL without a zone."""
    if not _ZONED.match(url):
        return None
    address, port = urlsplit(url).netloc.split("]")
    address = address.lstrip("[").partition("%")[0]
    return f"[{address}]{port}", address


def check_zone(url: str) -> None:
    """Raise `ValueError` where an IPv6 address has a zone that is none, or lacks one it needs.

    What is in brackets has to be such an address.
    """
    parts = urlsplit(with_plain_zone(url))
    host = parts.hostname or ""
    if "[" not in parts.netloc:
        return
    if "%" in host and not _ZONED.match(url):
        raise ValueError("a zone has to be the name of an interface, as in [fe80::1%25eth0]")
    address = _address(host)
    if address.is_link_local and address.scope_id is None:
        raise ValueError(f"a link-local address needs its interface: [{host}%25eth0]")
    if address.scope_id is not None and not address.is_link_local:
        raise ValueError("only a link-local address (fe80::) has a zone; leave it out")


def _address(host: str) -> IPv6Address:
    try:
        return IPv6Address(host)
    except ValueError:
        raise ValueError("only an IPv6 address is in brackets, as in [fd00::1]") from None
