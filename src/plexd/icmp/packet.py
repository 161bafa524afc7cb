"""ICMP echo on the wire (RFC 792, RFC 4443) and what recvmsg(2) delivers beside it, as values.

Nothing here needs a socket.

Both families share one layout; a probe's payload is always 16 bytes::

    0       1       2       3       4       5       6       7       8            24
    | type  | code  | checksum      | identifier    | sequence      | payload    |

The payload's first four bytes are the socket's cookie, which its filter checks in the kernel; the
other twelve are random and belong to this one probe.

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

REQUEST_V4, REPLY_V4 = 8, 0
REQUEST_V6, REPLY_V6 = 128, 129
COOKIE_BYTES = 4
PAYLOAD_BYTES = 16
REPORTS_V4 = (socket.IPPROTO_IP, 11)  # IP_RECVERR
REPORTS_V6 = (socket.IPPROTO_IPV6, 25)  # IPV6_RECVERR
SO_TIMESTAMPNS = 35
STAMP_SPACE = 64
REPORT_SPACE = 256

_ECHO = struct.Struct(f"!BBHHH{PAYLOAD_BYTES}s")
_HEADER = struct.Struct("!BBHHH")
_MODULUS = 0xFFFF  # a ones' complement sum of 16-bit words is the number modulo 2**16 - 1
_IPV4_HEADER_BYTES = 20
_PROTOCOL_OFFSET = 9
_ICMP = 1
_TIMESPEC = struct.Struct("@ll")
_REPORT = struct.Struct("=IBBBBII")
_FAMILY = struct.Struct("=H")
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3  # SO_EE_ORIGIN_*
_TIME_EXCEEDED = {(_ORIGIN_ICMP, 11), (_ORIGIN_ICMP6, 3)}
_ADDRESSES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}  # offset and length

Echo: TypeAlias = tuple[int, int, bytes]
"""Identifier, sequence and payload."""
Ancillary: TypeAlias = list[tuple[int, int, bytes]]
"""Level, type and data of each."""


def checksum(data: bytes) -> int:
    """Return the checksum (RFC 1071) of an even number of bytes; 0 if they contain their own."""
    return -int.from_bytes(data, "big") % _MODULUS


def encode_echo(kind: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return an echo request or reply of type ``kind`` with its checksum.

    Over IPv6 and on datagram sockets the kernel puts in a checksum of its own.
    """
    total = (kind << 8) + identifier + sequence + int.from_bytes(payload, "big")
    return _ECHO.pack(kind, 0, -total % _MODULUS, identifier, sequence, payload)


def parse_echo(data: bytes, kind: int, offset: int = 0) -> Echo:
    """Return what an echo of type ``kind`` carries, found at ``offset``.

    Raises `PacketError` for anything that cannot be the echo of one of our own probes. The
    checksum is not verified: the caller compares all that it covers with what was sent.
    """
    if len(data) != offset + _ECHO.size:
        raise PacketError(f"{len(data) - offset} bytes where an echo has {_ECHO.size}")
    found, code, _, identifier, sequence, payload = _ECHO.unpack_from(data, offset)
    if found != kind or code:
        raise PacketError(f"type {found} code {code} where an echo has type {kind} code 0")
    return identifier, sequence, payload


def parse_ipv4_header(data: bytes) -> int:
    """Return the length of the IPv4 header that a raw socket delivers before the ICMP packet."""
    if len(data) < _IPV4_HEADER_BYTES or data[0] >> 4 != 4:
        raise PacketError("no IPv4 header")
    length = (data[0] & 0x0F) * 4
    if length < _IPV4_HEADER_BYTES or data[_PROTOCOL_OFFSET] != _ICMP:
        raise PacketError("no ICMP in the IPv4 packet")
    return length


def parse_quote(data: bytes, kind: int) -> Echo:
    """Return the request of type ``kind`` that an ICMP error quotes, possibly only its header."""
    if len(data) < _HEADER.size:
        raise PacketError(f"{len(data)} bytes where a quoted request has {_HEADER.size} or more")
    found, code, _, identifier, sequence = _HEADER.unpack_from(data)
    if found != kind or code:
        raise PacketError(f"type {found} code {code} where a request has type {kind} code 0")
    return identifier, sequence, data[_HEADER.size : _ECHO.size]


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
