"""ICMP echo on the wire (RFC 792, RFC 4443): bytes to values and back, without any socket.

Both families share one layout; a probe's payload is always 16 bytes::

    0       1       2       3       4       5       6       7       8            24
    | type  | code  | checksum      | identifier    | sequence      | payload    |

The payload's first four bytes are the socket's cookie, which its filter checks in the kernel; the
other twelve are random and belong to this one probe.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from plexd.icmp.errors import PacketError

REQUEST_V4, REPLY_V4 = 8, 0
REQUEST_V6, REPLY_V6 = 128, 129
COOKIE_BYTES = 4
PAYLOAD_BYTES = 16

_ECHO = struct.Struct(f"!BBHHH{PAYLOAD_BYTES}s")
_HEADER = struct.Struct("!BBHHH")
_MODULUS = 0xFFFF  # a ones' complement sum of 16-bit words is the number modulo 2**16 - 1
_IPV4_HEADER_BYTES = 20
_PROTOCOL_OFFSET = 9
_ICMP = 1

Echo: TypeAlias = tuple[int, int, bytes]
"""Identifier, sequence and payload."""


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
