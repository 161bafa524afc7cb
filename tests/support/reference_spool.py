"""A spool as the design has it, small and pure: what a node's disk holds, as values.

It follows the rules of ``docs/spec/delivery.md`` in the plainest way and keeps everything for ever,
so that a test can copy a whole node, put it back, and compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from plexd.api import BatchName, LatencyResult, MetricBatch, MetricPoint, Predecessor, continuation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from plexd.api import Receipt

__all__ = ["ReferenceSpool", "Row"]


class Row(NamedTuple):
    """A point that waits: its name, and what it is."""

    epoch: str
    place: int
    stamp: datetime
    uid: str

    @property
    def point(self) -> MetricPoint:
        data = LatencyResult(self.uid, 1)
        return MetricPoint(timestamp=self.stamp, group="latency", peer_id=self.uid, data=data)


@dataclass
class Epoch:
    """The names given under one epoch.

    ``base`` is the place before its first one, ``given`` the last one. ``acknowledged`` is the last
    place that was acknowledged, None if none was. ``continues`` is the epoch it was made of.
    """

    epoch: str
    base: int = 0
    given: int = 0
    acknowledged: int | None = None
    dropped: int = 0
    continues: str = ""


@dataclass
class ReferenceSpool:
    """``life`` is the epoch of what is appended; all the rest is on the disk.

    ``counts_refused``: whether what was refused counts as dropped, as either is allowed.
    """

    life: str
    counts_refused: bool = False
    rows: list[Row] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    def append(self, stamp: datetime, uids: Iterable[str]) -> None:
        if not self.epochs or self.epochs[-1].epoch != self.life:
            self.epochs.append(Epoch(self.life))
        current = self.epochs[-1]
        for uid in uids:
            current.given += 1
            self.rows.append(Row(current.epoch, current.given, stamp, uid))

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest consecutive places of one epoch, at most ``limit``."""
        if not self.rows:
            return None
        epoch, first = self.rows[0].epoch, self.rows[0].place
        run = takewhile(
            lambda pair: pair[1][:2] == (epoch, first + pair[0]), enumerate(self.rows[:limit])
        )
        points = [row.point for _, row in run]
        name = BatchName(epoch, first, len(points))
        dropped = self._epoch(epoch).dropped
        return MetricBatch(points, name=name, dropped=dropped, after=self._after(epoch))

    def answer(self, name: BatchName, receipt: Receipt) -> list[Row]:
        """Act on a 2xx answer; return the rows that are given up without being stored."""
        if receipt.clash:
            assert receipt.newest is not None
            return self._rename(name.epoch, receipt.upto, receipt.newest)
        self._forget(name)
        epoch = self._epoch(name.epoch)
        epoch.acknowledged = max(epoch.acknowledged or 0, name.last)
        return []

    def set_aside(self, name: BatchName) -> None:
        """Give up a batch that was refused for good, which is an answer as well."""
        gone = self._forget(name)
        epoch = self._epoch(name.epoch)
        epoch.acknowledged = max(epoch.acknowledged or 0, name.last)
        if self.counts_refused:
            epoch.dropped += len(gone)

    def drop(self, index: int, count: int) -> list[Row]:
        """Lose rows: the oldest are evicted, others are damaged."""
        gone = self.rows[index : index + count]
        del self.rows[index : index + count]
        for row in gone:
            self._epoch(row.epoch).dropped += 1
        return gone

    def _forget(self, name: BatchName) -> list[Row]:
        gone = [row for row in self.rows if row.epoch == name.epoch and row.place <= name.last]
        self.rows = [row for row in self.rows if row not in gone]
        return gone

    def _rename(self, old: str, upto: int, newest: datetime) -> list[Row]:
        before = self._epoch(old)
        new = Epoch(
            continuation(old, newest),
            base=before.acknowledged or before.base,
            given=before.given,
            continues=old,
        )
        mine = [row for row in self.rows if row.epoch == old]
        kept = [row for row in mine if row.place > upto or row.stamp > newest]
        self.rows = [row for row in self.rows if row.epoch != old]
        self.rows[:0] = [row._replace(epoch=new.epoch) for row in kept]
        before.given = before.acknowledged or before.base
        self.epochs.insert(self.epochs.index(before) + 1, new)
        return [row for row in mine if row not in kept]

    def _epoch(self, epoch: str) -> Epoch:
        return next(each for each in reversed(self.epochs) if each.epoch == epoch)

    def _after(self, epoch: str) -> Predecessor:
        mine = self._epoch(epoch)
        skipped = 0
        if mine.continues:
            first = next(row.place for row in self.rows if row.epoch == epoch)
            before = self._epoch(mine.continues)
            if before.acknowledged is None:
                skipped = self._skipped_before(before)[0]
            return Predecessor(mine.continues, mine.base, skipped + first - 1 - mine.base)
        skipped, last = self._skipped_before(mine)
        if last is None:
            return Predecessor(skipped=skipped)
        return Predecessor(last.epoch, last.given, skipped)

    def _skipped_before(self, epoch: Epoch) -> tuple[int, Epoch | None]:
        """Return the points of epochs of which nothing was delivered, and the one before them."""
        skipped = 0
        for each in self._back_from(epoch):
            if each.acknowledged is not None:
                return skipped, each
            skipped += each.given - each.base
        return skipped, None

    def _back_from(self, epoch: Epoch) -> Iterator[Epoch]:
        yield from reversed(self.epochs[: self.epochs.index(epoch)])
