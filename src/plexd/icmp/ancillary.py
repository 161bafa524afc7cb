"""What the kernel delivers beside a packet (recvmsg(2)): the time it came, or an error report."""

from __future__ import annotations

import struct
from socket import SOL_SOCKET
from typing import TypeAlias

from plexd.icmp.sockets import REPORTS, SO_TIMESTAMPNS

__all__ = ["REPORT_SPACE", "STAMP_SPACE", "Ancillary", "report_of", "stamp_of"]

Ancillary: TypeAlias = list[tuple[int, int, bytes]]
"""Level, type and data of each."""

STAMP_SPACE = 64
REPORT_SPACE = 256

_STAMP = struct.Struct("@ll")  # struct timespec


def report_of(ancillary: Ancillary) -> bytes:
    """The error report, empty if there is none."""
    return next((data for level, kind, data in ancillary if (level, kind) in REPORTS), b"")


def stamp_of(ancillary: Ancillary) -> int:
    """Nanoseconds on the wall clock when the packet came, 0 if the kernel does not say."""
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and level == SOL_SOCKET:
            seconds, nano = _STAMP.unpack(data)
            stamp: int = seconds * 1_000_000_000 + nano
            return stamp
    return 0
