"""The public key and the addresses of a mesh interface, as the kernel has them."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plexd.wireguard import Absent, kernel, userspace

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_SIOCGIFNETMASK: Final = 0x891B
_IFREQ: Final = struct.Struct("16s2xH4s16x")  # name, then a sockaddr_in: family, port, address
_IF_INET6: Final = Path("/proc/net/if_inet6")
_GLOBAL_SCOPE: Final = "00"
_SOCKETS: Final = tuple(map(Path, userspace.DIRECTORIES))


async def read_public_key(interface: str) -> str | Absent:
    """The interface's public key, or why it is not known. Raises `WireGuardError`.

    A userspace daemon gives its private key only, which this program does not read.
    """
    reader = await kernel.open(interface)
    return reader if isinstance(reader, Absent) else await reader.read_public_key()


def is_there(interface: str) -> bool:
    """Whether this machine has such an interface, of whatever kind."""
    with suppress(OSError, ValueError):
        return socket.if_nametoindex(interface) > 0
    return False


def userspace_tool(interface: str) -> str:
    """The program that shows an interface which a userspace daemon runs; empty for another one."""
    for directory in _SOCKETS:
        with suppress(OSError):
            if (directory / f"{interface}.sock").is_socket():
                return "awg" if directory.name == "amneziawg" else "wg"
    return ""


def read_address(interface: str) -> str:
    """The interface's IPv4 address, else its global IPv6 address, else nothing."""
    return _ipv4(interface) or _ipv6(interface)


def read_networks(interface: str) -> list[IPv4Network | IPv6Network]:
    """The networks that the interface's addresses are of; none without an interface."""
    found: list[IPv4Network | IPv6Network] = []
    with suppress(ValueError):  # a mask that is none
        if address := _ipv4(interface):
            mask = _ask(interface, _SIOCGIFNETMASK)
            found.append(IPv4Network(f"{address}/{mask}", strict=False))
    for address6, prefix, _ in _ipv6_addresses(interface):
        found.append(IPv6Network((address6, prefix), strict=False))
    return found


def _ipv4(interface: str) -> str:
    return _ask(interface, _SIOCGIFADDR)


def _ask(interface: str, what: int) -> str:
    request = _IFREQ.pack(interface.encode()[:15], 0, bytes(4))
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, what, request)
        return socket.inet_ntoa(_IFREQ.unpack(answer)[2])
    return ""


def _ipv6(interface: str) -> str:
    for address, _, scope in _ipv6_addresses(interface):
        if scope == _GLOBAL_SCOPE:
            return str(address)
    return ""


def _ipv6_addresses(interface: str) -> Iterator[tuple[IPv6Address, int, str]]:
    """Yield each address with its prefix length and scope."""
    with suppress(OSError):
        for line in _IF_INET6.read_text("ascii").splitlines():
            address, _, prefix, scope, _, name = line.split()
            if name == interface:
                yield IPv6Address(bytes.fromhex(address)), int(prefix, 16), scope
