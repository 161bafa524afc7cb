"""The files of the journal: an append-only log in segments.

    <directory>/<number of its first record, 20 digits>.journal:
        magic                    8 bytes, "plexdj1" and a line end
        record*                  length u32 | crc32 u32 | number u64 | payload, little-endian

The checksum covers number and payload; the highest bit of the length marks the first record of an
append. Records are numbered 1, 2, 3 … over all segments. A segment ends at the record with which
the next one begins: bytes after that come from an append that failed. A record missing before that
end was acknowledged, and reading stops with `JournalDamaged`. It also stops in the last segment if
another append follows the damage, because an append begins only when the one before it is durable.
All other bytes after the last whole record are ignored as a write that was cut, of which nothing
was acknowledged.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = b"plexdj1\n"
_HEAD: Final = struct.Struct("<IIQ")
_NUMBER: Final = struct.Struct("<Q")
_SUFFIX: Final = ".journal"
_BEGINS_APPEND: Final = 1 << 31
# A greater length is damage; reports are bounded far below.
_LONGEST: Final = 256 * 1024 * 1024


def segment_name(first: int) -> str:
    """Return the name of the segment that begins with this record."""
    return f"{first:020d}{_SUFFIX}"


def list_segments(directory: Path, descriptor: int | None = None) -> list[tuple[int, Path]]:
    """Return the segments in order, each with its first record; ``descriptor`` is the directory's.

    Raises `OSError`.
    """
    names = os.listdir(directory if descriptor is None else descriptor)  # noqa: PTH208 -- a descriptor
    found = [path for path in map(Path, names) if path.suffix == _SUFFIX and path.stem.isdigit()]
    return sorted((int(path.stem), directory / path) for path in found)


def encode_append(first: int, payloads: Sequence[bytes]) -> bytes:
    """Return the bytes of one append; its first record has the number ``first``."""
    chunks: list[bytes] = []
    flags = _BEGINS_APPEND
    for number, payload in enumerate(payloads, first):
        chunks += (_HEAD.pack(len(payload) | flags, _checksum(number, payload), number), payload)
        flags = 0
    return b"".join(chunks)


def read_record(descriptor: int, place: int, number: int) -> tuple[bytes, int] | None:
    """Return the payload of a record and where it ends; None if it is not at ``place``, whole."""
    head = os.pread(descriptor, _HEAD.size, place)
    if len(head) < _HEAD.size:
        return None
    length, crc, found = _HEAD.unpack(head)
    length &= ~_BEGINS_APPEND
    if found != number or length > _LONGEST:
        return None
    place += _HEAD.size
    payload = os.pread(descriptor, length, place)
    if len(payload) < length or _checksum(number, payload) != crc:
        return None
    return payload, place + length


def find_append(data: bytes, least: int) -> int | None:
    """Return the number, from ``least`` on, of the first whole record that begins an append."""
    most = least + len(data) // _HEAD.size
    for upper in range(least >> 16, (most >> 16) + 1):
        # The bit in the length, and all of the number but its two lowest bytes.
        heads = b"(?=...[\x80-\xff].{6}" + re.escape(upper.to_bytes(6, "little")) + b")"
        for found in re.finditer(heads, data, re.DOTALL):
            length, crc, number = _HEAD.unpack_from(data, found.start())
            begin = found.start() + _HEAD.size
            payload = data[begin : begin + (length & ~_BEGINS_APPEND)]
            if number >= least and _checksum(number, payload) == crc:
                return int(number)
    return None


def _checksum(number: int, payload: bytes) -> int:
    return isal_zlib.crc32(payload, isal_zlib.crc32(_NUMBER.pack(number)))
