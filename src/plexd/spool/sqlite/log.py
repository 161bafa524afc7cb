"""The queue in one database: what `LogIntake` puts in, and how it comes out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from plexd.api import BatchName, MetricBatch, decode_batch
from plexd.spool.port import Refusal
from plexd.spool.sqlite.intake import Handed, LogIntake
from plexd.spool.sqlite.rows import Row
from plexd.spool.sqlite.schema import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.meta import Meta
    from plexd.spool.sqlite.steady_clock import SteadyClock
    from plexd.spool.sqlite.tables import SpoolTables

_MOST_DEAD_LETTERS, _MOST_DEAD_BYTES = 64, 1024 * 1024
# Free pages are given back once they are most of the file, some at a time.
_SHRINK_PAGES = 64


class PointLog(LogIntake):
    """A queue with one batch at a time at its head."""

    def __init__(
        self,
        tables: SpoolTables,
        meta: Meta,
        budget: Budget,
        steady: SteadyClock,
        max_age_ms: int,
    ) -> None:
        super().__init__(tables, meta, budget, steady, max_age_ms)
        self._oldest_at_start = self._first_name()

    def _first_name(self) -> tuple[object, object] | None:
        """Return the oldest batch: the process before may have sent it without any loss."""
        with translated():
            for place in self.tables.first_ids("batches", 1):
                return self.tables.name_of(place)
        return None

    def head(self) -> MetricBatch | None:
        """Return the oldest batch that is as it was written, with the loss that it reports."""
        self.overtaken = None
        while True:
            if self._is_time_to_expire():
                with self.transaction():
                    self._expire()
            place = self.handed.id if self.handed is not None else self._first_batch()
            if place is None:
                return None
            with translated():
                row = self.tables.read("batches", place)
            if row is not None:
                return self._hand_out(row)
            self.handed = None
            with self.transaction():
                self._quarantine("batches", place)

    def _is_time_to_expire(self) -> bool:
        oldest = self.sizes.oldest_ms
        return oldest is not None and oldest < self.steady.now_ms() - self._max_age_ms

    def _first_batch(self) -> int | None:
        with translated():
            outline = self.tables.outline("batches")
        return None if outline is None else outline[0]

    def _hand_out(self, row: Row) -> MetricBatch:
        if self.handed is None:
            name = BatchName(epoch=row.epoch, seq=row.seq, offset=0, of=row.points)
            self.handed = Handed(row.id, name, len(row.body), self._loss_to_report(name))
        return MetricBatch.of_json(row.body, self.handed.name, dropped=self.handed.dropped)

    def _loss_to_report(self, name: BatchName) -> int:
        """Decide on the loss once for each batch, and durably before it can be sent."""
        meta = self.meta
        if (meta.head_epoch, meta.head_seq) == (name.epoch, name.seq):
            return meta.head_dropped
        dropped = max(0, meta.lost - meta.told)
        if dropped == 0 or self._oldest_at_start == (name.epoch, name.seq):
            return 0
        with self.transaction():
            self.freeze(name, dropped)
        return dropped

    def freeze(self, name: BatchName, dropped: int) -> None:
        """Record, within a transaction, that the batch called ``name`` reports this loss."""
        meta = self.meta
        meta.head_epoch, meta.head_seq = name.epoch, name.seq
        meta.head_dropped = dropped

    def acknowledge(self, name: BatchName, refused: Sequence[Refusal]) -> Handed | None:
        """Drop the batch called ``name``, which arrived but for ``refused``; None if not found."""
        for found in (self.handed, self.overtaken):
            if found is not None and found.name == name:
                with self.transaction():
                    self._take_out(found)
                    self._count_acknowledged(found, refused)
                self._shrink()
                return found
        return None

    def _take_out(self, found: Handed) -> None:
        if found is self.overtaken:
            self.meta.count(found.reason, -found.name.of)
            self.overtaken = None
            return
        self._remove("batches", found.id, found.name.of, found.size)
        self.handed = None

    def _count_acknowledged(self, found: Handed, refused: Sequence[Refusal]) -> None:
        meta, points = self.meta, found.name.of
        given_up = sum(len(refusal.batch) for refusal in refused)
        if given_up < points:
            meta.told += found.dropped
        meta.refused += given_up
        meta.acknowledged += points - given_up
        for refusal in refused:
            self.add_dead_letter(refusal)

    def add_dead_letter(self, refusal: Refusal) -> None:
        """Keep what was refused, within a transaction."""
        name, body = refusal.batch.name, refusal.batch.to_json()
        if name is None:
            return
        row = Row(name.offset, name.epoch, name.seq, name.of, len(refusal.batch), body)
        values = (name.epoch, name.seq, name.offset, row.points, name.of, refusal.reason)
        self.tables.add_dead_letter(
            (*values, row.digest(), body), _MOST_DEAD_LETTERS, _MOST_DEAD_BYTES
        )
        self.sizes.dead_letters = self.tables.count_dead_letters()

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused and is still as it was written, oldest first."""
        with translated():
            return [_refusal(*values) for values in self.tables.dead_letters()]

    def batches(self) -> Iterator[Row]:
        """Yield all batches, oldest first."""
        for place in self.tables.ids_as_found("batches"):
            row = self.tables.read("batches", place)
            if row is not None:
                yield row

    def hand_over(self, before: PointLog) -> None:
        """Continue with the batch that ``before``, on the same files, had handed out."""
        self._oldest_at_start = before._oldest_at_start
        self.overtaken = before.overtaken
        if before.handed is not None and self._holds(before.handed):
            self.handed = before.handed

    def _holds(self, found: Handed) -> bool:
        with translated():
            name = self.tables.name_of(found.id)
        return name == (found.name.epoch, found.name.seq)

    def acknowledge_again(self, found: Handed, refused: Sequence[Refusal]) -> None:
        """Acknowledge what was acknowledged in memory, unless the disk has it already."""
        if self._holds(found):
            handed, self.handed = self.handed, found
            self.acknowledge(found.name, refused)
            self.handed = handed if handed is not found else None

    def take_back(self, before: Meta, epoch: str) -> None:
        """Undo a move of the batches of ``epoch``; ``before`` is ``meta`` without them."""
        with self.transaction():
            self.tables.drop_epoch(epoch)
            here = self.meta
            self.meta = msgspec.structs.replace(
                before, version=here.version, epoch=here.epoch, seq=here.seq
            )
            self.sizes = self._measured()

    def _shrink(self) -> None:
        """Give the pages that a drained backlog left free back to the disk."""
        with translated():
            free, pages = self.tables.free_pages()
            if free > _SHRINK_PAGES and free > pages // 2:
                self.tables.shrink(_SHRINK_PAGES)

    def close(self) -> None:
        """Close the database."""
        self.tables.close()


def _refusal(  # the columns of the table
    epoch: str, seq: int, start: int, _: int, total: int, reason: str, *rest: bytes
) -> Refusal:
    name = BatchName(epoch=epoch, seq=seq, offset=start, of=total)
    return Refusal(MetricBatch(decode_batch(rest[-1]), name=name), reason)
