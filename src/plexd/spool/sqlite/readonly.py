"""The view of a disk that fails: what can still be read of a log that accepts no writes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from plexd.spool.budget import ROW_BYTES
from plexd.spool.errors import SpoolError
from plexd.spool.port import Refusal
from plexd.spool.rows import assemble, whole_rows
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from plexd.api import BatchName, MetricBatch
    from plexd.spool.log import PointLog
    from plexd.spool.rows import Row

# A file of a read-only disk cannot be locked for writing, which SQLite wants for a -wal. Nobody
# else uses it: this process has the lock of the directory.
_WITHOUT_LOCKS = "unix-none"


class ReadonlyLog:
    """Delivers from the database at ``path`` where ``before`` stopped, and remembers what left.

    A row that cannot be read now is waited for: it is no damage yet. So are the rows of which
    nobody knows whether they are on the disk: they are neither delivered nor given up.

    Attributes:
        meta: what is known of the points; changes in it are lost with the process.
        sizes: what the tables hold beyond what left.
        clock: the clock by which ages are measured.
        departures: the batches that left, in order: acknowledged, or refused.
    """

    def __init__(self, path: Path, before: PointLog) -> None:
        self.meta = before.meta
        self._last = self.meta.appended
        if before.is_in_doubt:
            self.meta.appended += sum(row.points for row in before.added)
        self._before = before
        self.sizes = before.sizes
        self.clock = before.clock
        self.departures: list[BatchName | Refusal] = []
        self._path = path
        self._tables: SpoolTables | None = None
        self._behind = -(2**63)
        self._is_renamed = False

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points that have not left; None if they cannot be read."""
        with suppress(SpoolError):
            if not self._is_renamed:
                return assemble(self._waiting(), self.meta.chain, limit)
        return None

    def _waiting(self) -> Iterator[Row]:
        if self._tables is None:
            self._tables = SpoolTables(self._path, _WITHOUT_LOCKS)
        chain = self.meta.chain
        for row in whole_rows(self._tables, self._behind):
            if row.id > self._last:
                break
            if row.epoch != chain.head or row.place > chain.passed:
                yield row
            else:
                self._behind = row.id
                self.sizes.bytes -= len(row.body) + ROW_BYTES

    def acknowledge(self, name: BatchName) -> bool:
        points = self.meta.chain.ahead(name)
        if points:
            self.meta.acknowledged += points
            self.meta.chain.acknowledge(name.last, points, 0)
            self.departures.append(name)
        return points > 0

    def set_aside(self, refusal: Refusal) -> bool:
        name = refusal.batch.name
        points = self.meta.chain.ahead(name) if name is not None else 0
        if name is not None and points:
            self.meta.refused += points
            self.meta.chain.refuse(name.last, points)
            self.departures.append(refusal)
        return points > 0

    def rename(self, name: BatchName, _upto: int, _newest: datetime) -> bool:
        """Deliver no more of an epoch that has to be renamed, which is done on the disk."""
        self._is_renamed = self._is_renamed or name.epoch == self.meta.chain.sent_as
        return self._is_renamed

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused since the disk failed."""
        return [left for left in self.departures if isinstance(left, Refusal)]

    def end_in(self, disk: PointLog) -> None:
        """Bring to the disk what happened meanwhile. Raises `SpoolError` at the step that fails."""
        while self.departures:
            left = self.departures[0]
            if isinstance(left, Refusal):
                disk.set_aside(left)
            else:
                disk.acknowledge(left)
            del self.departures[0]
        disk.restore(self._before)

    def close(self) -> None:
        """Close the file, which is locked while it is open."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None
