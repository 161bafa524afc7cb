"""The write-ahead log of the store: an append-only log in segment files.

A record is durable when `Journal.append` returns. The tables are loaded from it in large chunks,
far cheaper than commits of single reports; segments of which all is in the tables are deleted.

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
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Final

from isal import isal_zlib

from plexd.durable import make_directory
from plexd_server.errors import JournalDamaged
from plexd_server.opened_files import identity, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAGIC: Final = b"plexdj1\n"
_HEAD: Final = struct.Struct("<IIQ")
_NUMBER: Final = struct.Struct("<Q")
_SUFFIX: Final = ".journal"
_BEGINS_APPEND: Final = 1 << 31
# A greater length is damage; reports are bounded far below.
_LONGEST: Final = 256 * 1024 * 1024
_SEGMENT_BYTES: Final = 8 * 1024 * 1024


class Journal:
    """The log in ``directory``, created if need be. One thread at a time uses it; calls block.

    Call `replay` first, to its end, and then `append`: the replay finds the end. Raises `OSError`
    if the disk fails, and if the directory or the segment was moved, deleted or replaced. An append
    that raised has acknowledged nothing, and the next one begins a new segment, as nobody knows
    what a failed write left on the disk. Another directory of the same name is never touched.

    Attributes:
        ignored_bytes: how many bytes the replay found after the last whole record.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._last = 0
        self._descriptor = -1
        self._segment = directory
        self._size = 0
        self.ignored_bytes = 0
        make_directory(directory)
        self._identity = identity(directory)

    def begins_after(self) -> int:
        """Return the number of the record before the first one; 0 if there is none."""
        return next((first - 1 for first, _ in self._segments()), 0)

    def replay(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield the records after the one numbered ``after``, in order, each with its number.

        Raises `JournalDamaged` where acknowledged records cannot be read.
        """
        self._last = after
        segments = self._segments()
        ends = [first - 1 for first, _ in segments[1:]]
        for (first, path), end in zip(segments, [*ends, None], strict=False):
            if end is not None and end <= after:
                continue
            if first > self._last + 1:
                raise JournalDamaged(path, f"records {self._last + 1} to {first - 1} are gone")
            yield from self._read(path, first, after, end)
            if end is not None and self._last < end:
                raise JournalDamaged(path, f"records {self._last + 1} to {end} cannot be read")

    def _read(
        self, path: Path, first: int, after: int, end: int | None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield one segment's records up to ``end``, or to the first place that is no record."""
        with path.open("rb") as opened:
            expected = first if opened.read(len(_MAGIC)) == _MAGIC else 0
            while end is None or expected <= end:
                place = opened.tell()
                payload = _read_payload(opened, expected)
                if payload is None:
                    if end is None:
                        self._ignore_tail(path, place, max(first, expected))
                    return
                if expected > after:
                    self._last = expected
                    yield expected, payload
                expected += 1

    def _ignore_tail(self, path: Path, place: int, expected: int) -> None:
        """Ignore the last segment from ``place`` on, unless another append follows there."""
        tail = path.read_bytes()[place:]
        following = _find_append(tail, expected)
        if following is not None and following > self._last:
            raise JournalDamaged(path, f"what stands before record {following} cannot be read")
        self.ignored_bytes = len(tail)

    def append(self, payloads: Sequence[bytes]) -> int:
        """Make all records durable and return the last one's number; none if it raises."""
        number = self._last
        chunks: list[bytes] = []
        flags = _BEGINS_APPEND
        for payload in payloads:
            number += 1
            head = _HEAD.pack(len(payload) | flags, _checksum(number, payload), number)
            chunks += (head, payload)
            flags = 0
        try:
            self._write(b"".join(chunks))
        except BaseException as err:
            self._roll_back()
            if isinstance(err, OSError) and err.errno:
                err.filename = err.filename or str(self._directory)
            raise
        self._last = number
        return number

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0 or self._size >= self._segment_bytes:
            self._begin_segment()
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
        os.fdatasync(self._descriptor)
        self._check_place()
        self._size += len(data)

    def _check_place(self) -> None:
        """Raise `OSError` if a start would not find what was written."""
        found = os.fstat(self._descriptor)
        if identity(self._segment) != (found.st_dev, found.st_ino):
            raise replaced(self._segment)

    def _begin_segment(self) -> None:
        self.close()
        name = f"{self._last + 1:020d}{_SUFFIX}"
        # A file of this name holds nothing that was acknowledged, or the number would be higher.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with self._opened() as directory:
            self._descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            self._segment = self._directory / name
            os.write(self._descriptor, _MAGIC)
            self._size = len(_MAGIC)
            os.fsync(directory)

    def _roll_back(self) -> None:
        """Cut off what was not acknowledged, if the disk still can, and close the segment."""
        if self._descriptor >= 0:
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                pass  # a replay stops there, and the next segment continues from this number
            finally:
                self.close()

    def delete_upto(self, record: int) -> None:
        """Delete the segments that hold no record after this one; never the one written to.

        May be called on another thread than the other methods.
        """
        with self._opened() as directory:
            for (_, path), (following, _) in pairwise(self._segments(directory)):
                if following <= record + 1:
                    _unlink(path.name, directory)

    def clear(self) -> None:
        """Delete all segments, when everything is in the tables. The numbers continue."""
        self.close()
        with self._opened() as directory:
            for _, path in self._segments(directory):
                _unlink(path.name, directory)

    def close(self) -> None:
        """Close the open segment. May be called again; an append opens another."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory; raises `OSError` if it is another one than before, or gone."""
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise replaced(self._directory) from err
        try:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) != self._identity:
                raise replaced(self._directory)
            yield descriptor
        finally:
            os.close(descriptor)

    def _segments(self, directory: int | None = None) -> list[tuple[int, Path]]:
        names = os.listdir(self._directory if directory is None else directory)  # noqa: PTH208 -- a descriptor
        paths = (self._directory / name for name in names)
        found = [path for path in paths if path.suffix == _SUFFIX and path.stem.isdigit()]
        return sorted((int(path.stem), path) for path in found)


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _read_payload(opened: BinaryIO, expected: int) -> bytes | None:
    """Return the payload of the record numbered ``expected``; None if it is not here, whole."""
    head = opened.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, crc, number = _HEAD.unpack(head)
    length &= ~_BEGINS_APPEND
    if number != expected or length > _LONGEST:
        return None
    payload = opened.read(length)
    if len(payload) < length or _checksum(number, payload) != crc:
        return None
    return payload


def _find_append(data: bytes, least: int) -> int | None:
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
