"""Opening the one socket per address family through which all probes go."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plexd.icmp import filters
from plexd.icmp.errors import SocketError
from plexd.icmp.packet import COOKIE_BYTES, REPLY_V4, REPLY_V6, REQUEST_V4, REQUEST_V6

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPORTS", "SO_TIMESTAMPNS", "EchoSocket", "open_socket"]

SO_TIMESTAMPNS = 35
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MEMINFO = 32, 33, 55
_REPORTS_V4 = (socket.IPPROTO_IP, 11)  # IP_RECVERR
_REPORTS_V6 = (socket.IPPROTO_IPV6, 25)  # IPV6_RECVERR
REPORTS = frozenset({_REPORTS_V4, _REPORTS_V6})
_BUFFER_BYTES = 4 << 20  # an answer takes 768 bytes of queue: room for 10,000 in twice that
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8
_HELP = (
    "allow datagram ICMP sockets (sysctl -w net.ipv4.ping_group_range='0 2147483647'), "
    "or give the program CAP_NET_RAW (setcap cap_net_raw+ep <program>)"
)


@dataclass(frozen=True)
class EchoSocket:
    """A socket that sends echo requests and receives the replies to them, and nothing else.

    ``has_header`` says that packets are delivered with their IP header; ``request`` and ``reply``
    are the types of what it sends and receives.
    """

    sock: socket.socket
    identifier: int
    cookie: bytes
    is_raw: bool
    has_header: bool
    request: int
    reply: int

    def drops(self) -> int:
        """How many packets the kernel threw away because the queue was full."""
        info = self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(info)[_MEMINFO_DROPS])


def open_socket(family: socket.AddressFamily) -> EchoSocket:
    """A datagram ICMP socket if this process may have one, else a raw one.

    Raises `SocketError` with what an operator can do about it if it may have neither.
    """
    name = "IPv4" if family == socket.AF_INET else "IPv6"
    try:
        return _configured(family, socket.SOCK_DGRAM, _bound_identifier)
    except PermissionError:
        pass
    except OSError as err:
        raise SocketError(f"{name} echo", err.strerror or str(err)) from err
    try:
        return _configured(family, socket.SOCK_RAW, lambda _: secrets.randbits(16))
    except PermissionError as err:
        raise SocketError(f"{name} echo", f"no permission to open a socket: {_HELP}") from err
    except OSError as err:
        raise SocketError(f"{name} echo", err.strerror or str(err)) from err


def _configured(
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    identify: Callable[[socket.socket], int],
) -> EchoSocket:
    is_v4 = family == socket.AF_INET
    with contextlib.ExitStack() as undo:
        protocol = socket.IPPROTO_ICMP if is_v4 else socket.IPPROTO_ICMPV6
        sock = undo.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
        is_raw = kind == socket.SOCK_RAW
        opened = EchoSocket(
            sock,
            identify(sock),
            os.urandom(COOKIE_BYTES),
            is_raw=is_raw,
            has_header=is_raw and is_v4,
            request=REQUEST_V4 if is_v4 else REQUEST_V6,
            reply=REPLY_V4 if is_v4 else REPLY_V6,
        )
        _filter(opened)
        _size(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(*(_REPORTS_V4 if is_v4 else _REPORTS_V6), 1)
        undo.pop_all()
    return opened


def _bound_identifier(sock: socket.socket) -> int:
    """The kernel puts its own identifier on what a datagram socket sends; binding chooses it."""
    sock.bind(("", 0))
    return int(sock.getsockname()[1])


def _filter(opened: EchoSocket) -> None:
    if opened.has_header:
        opened.sock.setsockopt(filters.SOL_RAW, filters.ICMP_FILTER, filters.BLOCKED_V4)
    elif opened.is_raw:
        opened.sock.setsockopt(socket.IPPROTO_ICMPV6, filters.ICMP6_FILTER, filters.BLOCKED_V6)
    filters.attach_program(opened.sock, opened.identifier, opened.cookie, header=opened.has_header)


def _size(sock: socket.socket) -> None:
    """As large as asked for with CAP_NET_ADMIN, as large as the system grants without."""
    for plain, force in (
        (socket.SO_RCVBUF, _SO_RCVBUFFORCE),
        (socket.SO_SNDBUF, _SO_SNDBUFFORCE),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
