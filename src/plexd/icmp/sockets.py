"""Opening the one socket per address family through which all probes go.

The kernel keeps away from the socket what is not for it, so that a flood of other packets costs
no wake-up. There are two filters: that of raw sockets (raw(7) ``ICMP_FILTER``, RFC 3542 section
3.2 ``ICMP6_FILTER``) passes echo replies only, and a classic BPF program (linux/filter.h) passes
only those that carry this socket's identifier and cookie::

    x = length of the IPv4 header, 0 where none is delivered
    identifier at [x + 4] and cookie at [x + 8] as they should be ? all of it : nothing
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plexd.icmp.errors import SocketError
from plexd.icmp.packet import (
    COOKIE_BYTES,
    REPLY_V4,
    REPLY_V6,
    REPORTS_V4,
    REPORTS_V6,
    REQUEST_V4,
    REQUEST_V6,
    SO_TIMESTAMPNS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MEMINFO = 26, 32, 33, 55
_BUFFER_BYTES = 4 << 20  # an answer takes 768 bytes of queue: room for 10,000 in twice that
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8

_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER = 1
_BLOCKED_V4 = struct.pack("=I", 0xFFFFFFFF & ~(1 << REPLY_V4))
_BLOCKED_V6 = struct.pack(
    "=8I", *(0xFFFFFFFF & ~(1 << REPLY_V6 % 32 if i == REPLY_V6 // 32 else 0) for i in range(8))
)
_INSTRUCTION = struct.Struct("=HBBI")
_LDX_HEADER, _LDX_IMM = 0xB1, 0x01
_LD_HALF, _LD_WORD = 0x48, 0x40
_JUMP_EQUAL, _RETURN = 0x15, 0x06
_EVERYTHING = 0xFFFFFFFF

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
        """Return how many packets the kernel threw away because the queue was full.

        0 where the kernel cannot say (before Linux 4.12, gVisor).
        """
        try:
            info = self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            return int(_MEMINFO.unpack(info)[_MEMINFO_DROPS])
        except (OSError, struct.error):  # another kernel may have fewer fields
            return 0


def open_socket(family: socket.AddressFamily) -> EchoSocket:
    """Open a datagram ICMP socket if there is one for this process, else a raw one.

    Whatever the datagram socket fails with leads to the raw one: kernels built without it, and
    sandboxes, refuse it in many ways. Raises `SocketError` with the raw one's failure, and with
    what an operator can do about it if it is a missing permission.
    """
    name = "IPv4" if family == socket.AF_INET else "IPv6"
    with contextlib.suppress(OSError):
        return _configured(family, socket.SOCK_DGRAM, _bound_identifier)
    try:
        return _configured(family, socket.SOCK_RAW, lambda _: secrets.randbits(16))
    except PermissionError as err:
        raise SocketError(f"{name} echo", f"no permission to open a socket: {_HELP}") from err
    except OSError as err:
        raise SocketError(f"{name} echo", err.strerror or str(err)) from err


def _configured(
    family: socket.AddressFamily, kind: socket.SocketKind, identify: Callable[[socket.socket], int]
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
        _set(sock, socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _set(sock, *(REPORTS_V4 if is_v4 else REPORTS_V6), 1)
        undo.pop_all()
    return opened


def _set(sock: socket.socket, level: int, option: int, value: int | bytes) -> bool:
    """Set what makes probing cheaper or more exact, and return whether the kernel knows it.

    Sandboxes lack some options. Every answer is checked, whatever the filters let pass, and time
    and loss have other sources.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(level, option, value)
        return True
    return False


def _bound_identifier(sock: socket.socket) -> int:
    """Bind the socket: its port is the identifier that the kernel puts into what it sends."""
    sock.bind(("", 0))
    return int(sock.getsockname()[1])


def _filter(opened: EchoSocket) -> None:
    if opened.has_header:
        _set(opened.sock, _SOL_RAW, _ICMP_FILTER, _BLOCKED_V4)
    elif opened.is_raw:
        _set(opened.sock, socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _BLOCKED_V6)
    _attach_program(opened.sock, opened.identifier, opened.cookie, header=opened.has_header)


def _attach_program(sock: socket.socket, identifier: int, cookie: bytes, *, header: bool) -> None:
    """Let only echoes of this socket's own probes into its queue."""
    length = (_LDX_HEADER, 0, 0, 0) if header else (_LDX_IMM, 0, 0, 0)
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            length,
            (_LD_HALF, 0, 0, 4),
            (_JUMP_EQUAL, 0, 3, identifier),
            (_LD_WORD, 0, 0, 8),
            (_JUMP_EQUAL, 0, 1, int.from_bytes(cookie, "big")),
            (_RETURN, 0, 0, _EVERYTHING),
            (_RETURN, 0, 0, 0),
        )
    )
    kept = array("B", program)  # until the kernel has copied it
    address, size = kept.buffer_info()
    description = struct.pack("@HP", size // _INSTRUCTION.size, address)
    _set(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)


def _size(sock: socket.socket) -> None:
    """Set the buffers' sizes, beyond the system's limits where CAP_NET_ADMIN allows it."""
    for plain, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        if not _set(sock, socket.SOL_SOCKET, force, _BUFFER_BYTES):
            _set(sock, socket.SOL_SOCKET, plain, _BUFFER_BYTES)
