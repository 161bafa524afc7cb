"""What the kernel delivers beside a packet (recvmsg(2)): when it came, or an error report.

A report from the error queue (ip(7), ``IP_RECVERR``) is a ``struct sock_extended_err``
(linux/errqueue.h), in native byte order, followed by the address of its sender::

    u32 errno | u8 origin | u8 type | u8 code | u8 pad | u32 info | u32 data | sockaddr
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TypeAlias

from plexd.icmp.errors import PacketError

Ancillary: TypeAlias = list[tuple[int, int, bytes]]
"""Level, type and data of each."""

REPORTS_V4 = (socket.IPPROTO_IP, 11)  # IP_RECVERR
REPORTS_V6 = (socket.IPPROTO_IPV6, 25)  # IPV6_RECVERR
SO_TIMESTAMPNS = 35
STAMP_SPACE = 64
REPORT_SPACE = 256

_TIMESPEC = struct.Struct("@ll")
_REPORT = struct.Struct("=IBBBBII")
_FAMILY = struct.Struct("=H")
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3  # SO_EE_ORIGIN_*
_TIME_EXCEEDED = {(_ORIGIN_ICMP, 11), (_ORIGIN_ICMP6, 3)}
_ADDRESSES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}  # offset and length


def stamp_of(ancillary: Ancillary) -> int:
    """Return nanoseconds on the wall clock when the packet came, 0 if the kernel does not say."""
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and level == socket.SOL_SOCKET:
            seconds, nano = _TIMESPEC.unpack(data)
            stamp: int = seconds * 1_000_000_000 + nano
            return stamp
    return 0


def report_of(ancillary: Ancillary) -> bytes:
    """Return the error report, empty if there is none."""
    wanted = (REPORTS_V4, REPORTS_V6)
    return next((data for level, kind, data in ancillary if (level, kind) in wanted), b"")


def parse_report(data: bytes) -> tuple[int, str]:
    """Return the error number, and why a probe was not delivered, with the router that says so.

    Raises `PacketError` when the bytes are too few.
    """
    if len(data) < _REPORT.size:
        raise PacketError(f"{len(data)} bytes where a report has {_REPORT.size} or more")
    number, origin, kind, _code, _, _, _ = _REPORT.unpack_from(data)
    exceeded = (origin, kind) in _TIME_EXCEEDED
    reason = "Time to live exceeded" if exceeded else os.strerror(number & 0x7FFFFFFF)
    offender = _offender(data[_REPORT.size :])
    return number, f"{reason} (reported by {offender})" if offender else reason


def _offender(data: bytes) -> str:
    if len(data) < _FAMILY.size:
        return ""
    (family,) = _FAMILY.unpack_from(data)
    offset, length = _ADDRESSES.get(family, (0, 0))
    packed = data[offset : offset + length]
    return socket.inet_ntop(family, packed) if length and len(packed) == length else ""
