"""Errors that the kernel queues for a socket (ip(7), ``IP_RECVERR``): bytes to a reason.

A report is a ``struct sock_extended_err`` (linux/errqueue.h), in native byte order, followed by
the address of whoever sent it::

    u32 errno | u8 origin | u8 type | u8 code | u8 pad | u32 info | u32 data | sockaddr
"""

from __future__ import annotations

import os
import socket
import struct

from plexd.icmp.errors import PacketError

__all__ = ["parse_report"]

_REPORT = struct.Struct("=IBBBBII")
_FAMILY = struct.Struct("=H")
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3  # SO_EE_ORIGIN_*
_TIME_EXCEEDED = {(_ORIGIN_ICMP, 11), (_ORIGIN_ICMP6, 3)}
_ADDRESSES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}  # offset and length


def parse_report(data: bytes) -> tuple[int, str]:
    """The error number and why a probe was not delivered, with the router that says so.

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
