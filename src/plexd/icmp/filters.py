"""What the kernel keeps away from a socket, so that a flood of other packets costs no wake-up.

Two layers: the type filter of raw sockets (raw(7) ``ICMP_FILTER``, RFC 3542 section 3.2
``ICMP6_FILTER``) lets nothing but echo replies pass, and a classic BPF program
(linux/filter.h) lets only those pass that carry this socket's identifier and cookie::

    x = length of the IPv4 header, 0 where none is delivered
    identifier at [x + 4] and cookie at [x + 8] as they should be ? all of it : nothing
"""

from __future__ import annotations

import ctypes
import socket
import struct

from plexd.icmp.packet import REPLY_V4, REPLY_V6

__all__ = ["BLOCKED_V4", "BLOCKED_V6", "ICMP6_FILTER", "ICMP_FILTER", "SOL_RAW", "attach_program"]

SOL_RAW, ICMP_FILTER = 255, 1
ICMP6_FILTER = 1
BLOCKED_V4 = struct.pack("=I", 0xFFFFFFFF & ~(1 << REPLY_V4))
BLOCKED_V6 = struct.pack(
    "=8I", *(0xFFFFFFFF & ~(1 << REPLY_V6 % 32 if i == REPLY_V6 // 32 else 0) for i in range(8))
)

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
_LDX_HEADER, _LDX_IMM = 0xB1, 0x01
_LD_HALF, _LD_WORD = 0x48, 0x40
_JUMP_EQUAL, _RETURN = 0x15, 0x06
_EVERYTHING = 0xFFFFFFFF


def attach_program(sock: socket.socket, identifier: int, cookie: bytes, *, header: bool) -> None:
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
    buffer = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)
