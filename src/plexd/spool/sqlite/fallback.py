"""What is kept in memory while the disk fails, until it can be moved to the disk."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from plexd.spool.errors import SpoolError
from plexd.spool.sqlite.log import PointLog
from plexd.spool.sqlite.meta import Meta
from plexd.spool.sqlite.recovery import new_epoch
from plexd.spool.sqlite.rows import Row
from plexd.spool.sqlite.steady_clock import SteadyClock
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.spool.port import Refusal
    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.intake import Handed

_COUNTS = ("acknowledged", "refused", "evicted", "expired", "damaged", "told")


class Doubt(Struct, frozen=True):
    """A collection whose commit failed at its very end, as the ``row`` it may be in the file."""

    row: Row
    body: bytes
    points: int


class _Moved(Struct, frozen=True):
    """A move from memory that failed at its very end; it shows by the ``epoch`` it began."""

    epoch: str
    before: Meta


class Fallback:
    """A queue in memory, and what has to be done on the disk once it works again.

    Attributes:
        queue: the queue, None while it is not needed.
        acknowledged: the batches on the disk that were acknowledged meanwhile.
        doubt: the collection that may be on the disk.
    """

    def __init__(self, budget: Budget, max_age_ms: int, clock: Clock) -> None:
        self.queue: PointLog | None = None
        self.acknowledged: list[tuple[Handed, tuple[Refusal, ...]]] = []
        self.doubt: Doubt | None = None
        self._moved: _Moved | None = None
        self._budget = budget.in_memory()
        self._max_age_ms = max_age_ms
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to bring back to the disk."""
        return self.queue is None and self.doubt is None and not self.acknowledged

    def append(self, body: bytes, points: int) -> None:
        """Add a collection, under an epoch that nothing on the disk has."""
        if self.queue is None:
            meta = Meta(epoch=new_epoch())
            steady = SteadyClock(self._clock, meta)
            tables = SpoolTables.open(None, self._budget)
            self.queue = PointLog(tables, meta, self._budget, steady, self._max_age_ms)
        self.queue.append(body, points)

    def replay_into(self, readonly: PointLog) -> None:
        """Acknowledge again, in what can be read of the disk, what was acknowledged before."""
        for found, refused in self.acknowledged:
            readonly.handed = found
            readonly.acknowledge(found.name, refused)

    def empty_into(self, disk: PointLog, limit: int) -> None:
        """Bring everything to the disk, step by step; no step that is done is repeated.

        Raises `SpoolError` at the step that fails.
        """
        self._undo_move(disk)
        while self.acknowledged:
            disk.acknowledge_again(*self.acknowledged[0])
            del self.acknowledged[0]
        if self.doubt is not None:
            self._append_doubtful(disk, self.doubt)
        if self.queue is not None:
            self._move(self.queue, disk, limit)

    def _undo_move(self, disk: PointLog) -> None:
        if self._moved is not None and self.queue is not None:
            if disk.meta.epoch == self._moved.epoch:
                disk.take_back(self._moved.before, self.queue.meta.epoch)
            self._moved = None

    def _append_doubtful(self, disk: PointLog, doubt: Doubt) -> None:
        if not disk.has(doubt.row):
            try:
                disk.append(doubt.body, doubt.points)
            except SpoolError:
                if disk.is_in_doubt and disk.attempted is not None:
                    self.doubt = Doubt(disk.attempted, doubt.body, doubt.points)
                raise
        self.doubt = None

    def _move(self, queue: PointLog, disk: PointLog, limit: int) -> None:
        # Sealed first, so that everything has a name before it can be in two places.
        queue.seal(limit)
        with disk.transaction():
            disk.make_room(queue.sizes.bytes)
        epoch, before = new_epoch(), copy.copy(disk.meta)
        try:
            _copy(queue, disk, epoch)
        except SpoolError:
            if disk.is_in_doubt:
                self._moved = _Moved(epoch, before)
            raise
        self.close()

    def close(self) -> None:
        """Drop the queue."""
        if self.queue is not None:
            self.queue.close()
            self.queue = None


def _copy(memory: PointLog, disk: PointLog, epoch: str) -> None:
    """Put every batch of ``memory``, which has nothing else, behind those on the ``disk``.

    They keep their names, ages and order. It is one transaction, which begins the new ``epoch``:
    points left unsealed on the disk are sealed later than these batches, and lie before them.
    """
    base = disk.meta.appended
    older_by = disk.steady.now_ms() - memory.steady.now_ms()
    with disk.transaction():
        disk.meta.appended += memory.meta.appended
        for name in _COUNTS:
            disk.meta.count(name, getattr(memory.meta, name))
        for row in memory.batches():
            stamped = row.stamped + older_by
            disk.put(Row(row.id + base, row.epoch, row.seq, stamped, row.points, row.body))
        for refusal in memory.dead_letters():
            disk.add_dead_letter(refusal)
        if (handed := memory.handed) is not None:
            disk.handed = msgspec.structs.replace(handed, id=handed.id + base)
            disk.freeze(handed.name, handed.dropped)
        disk.meta.epoch, disk.meta.seq = epoch, 0
