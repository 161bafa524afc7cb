"""The public key and the address of a mesh interface, read before this machine is a node."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from plexd.wireguard import Absent, kernel, userspace

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
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


def is_in_userspace(interface: str) -> bool:
    """Whether a userspace daemon has a socket for the interface."""
    with suppress(OSError):
        return any((directory / f"{interface}.sock").is_socket() for directory in _SOCKETS)
    return False


def read_address(interface: str) -> str:
    """The interface's IPv4 address, else its global IPv6 address, else nothing."""
    return _ipv4(interface) or _ipv6(interface)


def _ipv4(interface: str) -> str:
    request = _IFREQ.pack(interface.encode()[:15], 0, bytes(4))
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
        return socket.inet_ntoa(_IFREQ.unpack(answer)[2])
    return ""


def _ipv6(interface: str) -> str:
    with suppress(OSError):
        for line in _IF_INET6.read_text("ascii").splitlines():
            address, _, _, scope, _, name = line.split()
            if name == interface and scope == _GLOBAL_SCOPE:
                return str(IPv6Address(bytes.fromhex(address)))
    return ""
