"""The write-ahead log of the store, as the one that writes it sees it.

A record is durable when `Journal.append` returns. `Follower` reads the records behind it, in this
process or another one; segments that the slowest follower has are deleted. ``segments.py`` has the
form of the files.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from plexd.durable import make_directory
from plexd_server.errors import JournalDamaged
from plexd_server.opened_files import identity, replaced
from plexd_server.store.journal.segments import (
    MAGIC,
    encode_append,
    find_append,
    list_segments,
    read_record,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_SEGMENT_BYTES: Final = 8 * 1024 * 1024


class Journal:
    """The log in ``directory``, created if need be. One thread at a time uses it; calls block.

    Call `replay` first, to its end, and then `append`: the replay finds the end. Raises `OSError`
    if the disk fails, and if the directory or the segment was moved, deleted or replaced. An append
    that raised has acknowledged nothing, and the next one begins a new segment, as nobody knows
    what a failed write left on the disk. Another directory of the same name is never touched.

    Attributes:
        last: the number of the last durable record.
        ignored_bytes: how many bytes the replay found after the last whole record.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._segment = directory
        self._size = 0
        self._followers: dict[str, int] = {}
        self.last = 0
        self.ignored_bytes = 0
        make_directory(directory)
        self._identity = identity(directory)

    def begins_after(self) -> int:
        """Return the number of the record before the first one; 0 if there is none."""
        return next((first - 1 for first, _ in list_segments(self._directory)), 0)

    def replay(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield the records after the one numbered ``after``, in order, each with its number.

        Raises `JournalDamaged` where acknowledged records cannot be read.
        """
        self.last = after
        segments = list_segments(self._directory)
        ends = [first - 1 for first, _ in segments[1:]]
        for (first, path), end in zip(segments, [*ends, None], strict=False):
            if end is not None and end <= after:
                continue
            if first > self.last + 1:
                raise JournalDamaged(path, f"records {self.last + 1} to {first - 1} are gone")
            yield from self._read(path, first, after, end)
            if end is not None and self.last < end:
                raise JournalDamaged(path, f"records {self.last + 1} to {end} cannot be read")

    def _read(
        self, path: Path, first: int, after: int, end: int | None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield one segment's records up to ``end``, or to the first place that is no record."""
        with path.open("rb", buffering=0) as opened:
            expected = first if opened.read(len(MAGIC)) == MAGIC else 0
            place = len(MAGIC)
            while end is None or expected <= end:
                found = read_record(opened.fileno(), place, expected)
                if found is None:
                    if end is None:
                        self._ignore_tail(path, place, max(first, expected))
                    return
                payload, place = found
                if expected > after:
                    self.last = expected
                    yield expected, payload
                expected += 1

    def _ignore_tail(self, path: Path, place: int, expected: int) -> None:
        """Ignore the last segment from ``place`` on, unless another append follows there."""
        tail = path.read_bytes()[place:]
        following = find_append(tail, expected)
        if following is not None and following > self.last:
            raise JournalDamaged(path, f"what stands before record {following} cannot be read")
        self.ignored_bytes = len(tail)

    def append(self, payloads: Sequence[bytes]) -> int:
        """Make all records durable and return the last one's number; none if it raises."""
        try:
            self._write(encode_append(self.last + 1, payloads))
        except BaseException as err:
            self._roll_back()
            if isinstance(err, OSError) and err.errno:
                err.filename = err.filename or str(self._directory)
            raise
        self.last += len(payloads)
        return self.last

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
        name = segment_name(self.last + 1)
        # A file of this name holds nothing that was acknowledged, or the number would be higher.
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with self._opened() as directory:
            self._descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            self._segment = self._directory / name
            os.write(self._descriptor, MAGIC)
            self._size = len(MAGIC)
            os.fsync(directory)

    def _roll_back(self) -> None:
        """Cut off what was not acknowledged, if the disk still can, and close the segment."""
        if self._descriptor >= 0:
            try:
                os.ftruncate(self._descriptor, self._size)
                self._put_back()
            except OSError:
                pass  # a replay stops there, and the next segment continues from this number
            finally:
                self.close()

    def _put_back(self) -> None:
        """Write the segment again if somebody deleted it: only its descriptor still has it."""
        with self._opened() as directory:
            if self._segment.name in os.listdir(directory):  # noqa: PTH208 -- a descriptor
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            draft = f"{self._segment.name}.new"
            with os.fdopen(os.open(draft, flags, 0o600, dir_fd=directory), "wb") as again:
                again.write(os.pread(self._descriptor, self._size, 0))
                again.flush()
                os.fsync(again.fileno())
            os.rename(draft, self._segment.name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)

    def release(self, follower: str, upto: int) -> None:
        """Note that a follower has the records up to this one; delete what all followers have.

        May be called on another thread than the other methods. Raises `OSError`.
        """
        self._followers[follower] = upto
        self.delete_upto(min(self._followers.values()))

    def delete_upto(self, record: int) -> None:
        """Delete the segments that hold no record after this one; never the one written to."""
        with self._opened() as directory:
            for (_, path), (following, _) in pairwise(list_segments(self._directory, directory)):
                if following <= record + 1:
                    _unlink(path.name, directory)

    def clear(self) -> None:
        """Delete all segments, when everything is in the tables. The numbers continue."""
        self.close()
        with self._opened() as directory:
            for _, path in list_segments(self._directory, directory):
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


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
