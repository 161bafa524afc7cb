"""What is held in memory while the disk fails, until it can be brought there."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.errors import SpoolError
from plexd.spool.sqlite.log import PointLog
from plexd.spool.sqlite.meta import Meta
from plexd.spool.sqlite.moving import move
from plexd.spool.sqlite.recovery import new_epoch
from plexd.spool.sqlite.steady_clock import SteadyClock
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.spool.port import Refusal
    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.intake import Handed
    from plexd.spool.sqlite.rows import Row

__all__ = ["Doubt", "Fallback"]


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
    """Four things: a queue of its own, what was settled meanwhile of the batches on the disk, the
    collection of which nobody knows whether it is there, and a move of which nobody knows.

    Attributes:
        queue: the queue, None while it is not needed.
        settled: what was settled of the batches on the disk.
        doubt: the collection that may be there.
    """  # noqa: D205  # one list

    def __init__(self, bounds: Budget, max_age_ms: int, clock: Clock) -> None:
        self.queue: PointLog | None = None
        self.settled: list[tuple[Handed, tuple[Refusal, ...]]] = []
        self.doubt: Doubt | None = None
        self._moved: _Moved | None = None
        self._bounds = bounds.in_memory()
        self._max_age_ms = max_age_ms
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """Whether the disk has, or lacks, nothing because of this."""
        return self.queue is None and self.doubt is None and not self.settled

    def append(self, body: bytes, points: int) -> None:
        """Take in a collection, under an epoch that nothing on the disk has."""
        if self.queue is None:
            account = Meta(epoch=new_epoch())
            steady = SteadyClock(self._clock, account)
            tables = SpoolTables.open(None, self._bounds)
            self.queue = PointLog(tables, account, self._bounds, steady, self._max_age_ms)
        self.queue.append(body, points)

    def settle_in(self, ailing: PointLog) -> None:
        """Pass over, in what can be read of the disk, what was settled before."""
        for found, refused in self.settled:
            ailing.handed = found
            ailing.settle(found.name, refused)

    def empty_into(self, disk: PointLog, limit: int) -> None:
        """Bring everything to the disk, step by step; what is done is not done again.

        Raises `SpoolError` where it has to stop.
        """
        self._undo_move(disk)
        while self.settled:
            disk.settle_again(*self.settled[0])
            del self.settled[0]
        if self.doubt is not None:
            self._append_doubtful(disk, self.doubt)
        if self.queue is not None:
            self._move(self.queue, disk, limit)

    def _undo_move(self, disk: PointLog) -> None:
        if self._moved is not None and self.queue is not None:
            if disk.account.epoch == self._moved.epoch:
                disk.take_back(self._moved.before, self.queue.account.epoch)
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
        # Sealed first, so that everything has a name before it may be in two places.
        queue.seal(limit)
        with disk.transaction():
            disk.make_room(queue.sizes.bytes)
        epoch, before = new_epoch(), copy.copy(disk.account)
        try:
            move(queue, disk, epoch)
        except SpoolError:
            if disk.is_in_doubt:
                self._moved = _Moved(epoch, before)
            raise
        self.close()

    def close(self) -> None:
        """Let go of the queue."""
        if self.queue is not None:
            self.queue.close()
            self.queue = None
