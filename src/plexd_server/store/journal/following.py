"""Reading the journal behind the process that writes it, for as long as it is written.

A follower is told up to where records are durable; what it reads beyond that would be no more than
a hope. It needs nothing of the writer but the files, so there may be several, in any process. The
writer keeps each segment until its followers have released it (`Journal.release`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from plexd_server.errors import JournalDamaged
from plexd_server.opened_files import identity, replaced
from plexd_server.store.journal.segments import MAGIC, list_segments, read_record, segment_name

if TYPE_CHECKING:
    from pathlib import Path


class Follower:
    """Reads the records of the journal in ``directory`` after the one numbered ``position``.

    Calls block; one thread at a time uses it. Nothing is open before the first record is asked for.
    Another directory of the same name is not read.
    """

    def __init__(self, directory: Path, position: int) -> None:
        self._directory = directory
        self._identity = identity(directory)
        self.position = position
        self._descriptor = -1
        self._place = 0

    def next(self) -> bytes:
        """Return the next record, which has to be durable, and move on to it.

        Raises `JournalDamaged` if it cannot be read, `OSError` if the disk fails, or if the
        directory was moved, deleted or replaced.
        """
        number = self.position + 1
        # A segment that begins here has it, whatever a failed append left in the one before.
        if not self._open(number) and self._descriptor < 0:
            self._open_before(number)
        found = self._read(number)
        if found is None:
            raise JournalDamaged(self._directory, f"record {number} cannot be read")
        self.position = number
        return found

    def return_to(self, position: int) -> None:
        """Read the records after this one again."""
        self.close()
        self.position = position

    def close(self) -> None:
        """Close the open segment. May be called again; the next record opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self, first: int) -> bool:
        """Open the segment that begins with a record; return whether there is one."""
        with suppress(FileNotFoundError):
            path = self._directory / segment_name(first)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.close()
            self._descriptor = descriptor
            self._place = len(MAGIC)
            self._check_place()
            return True
        return False

    def _open_before(self, number: int) -> None:
        """Open the segment that holds a record which is not its first, and skip those before."""
        self._check_place()
        segments = list_segments(self._directory)
        first = max((first for first, _ in segments if first < number), default=number)
        if self._open(first):
            for skipped in range(first, number):
                self._read(skipped)

    def _check_place(self) -> None:
        if identity(self._directory) != self._identity:
            self.close()
            raise replaced(self._directory)

    def _read(self, number: int) -> bytes | None:
        if self._descriptor < 0:
            return None
        found = read_record(self._descriptor, self._place, number)
        if found is None:
            self.close()  # the next attempt looks for it again
            return None
        payload, self._place = found
        return payload
