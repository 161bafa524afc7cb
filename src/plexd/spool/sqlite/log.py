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

__all__ = ["PointLog"]

_MOST_DEAD_LETTERS, _MOST_DEAD_BYTES = 64, 1024 * 1024
# Free pages are given back once they are most of the file, some at a time.
_SHRINK_PAGES = 64


class PointLog(LogIntake):
    """A queue with one batch at a time at its head."""

    def __init__(
        self,
        tables: SpoolTables,
        account: Meta,
        bounds: Budget,
        steady: SteadyClock,
        max_age_ms: int,
    ) -> None:
        super().__init__(tables, account, bounds, steady, max_age_ms)
        self._oldest_at_start = self._first_name()

    def _first_name(self) -> tuple[object, object] | None:
        """The oldest batch: the process before may have sent it, telling of no loss."""
        with translated():
            for place in self.tables.first_ids("batches", 1):
                return self.tables.name_of(place)
        return None

    def head(self) -> MetricBatch | None:
        """The oldest batch that is as it was written, with the loss that it tells of."""
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
            self.handed = Handed(row.id, name, len(row.body), self._loss_to_tell(name))
        return MetricBatch.of_json(row.body, self.handed.name, dropped=self.handed.dropped)

    def _loss_to_tell(self, name: BatchName) -> int:
        """Decided once for each batch, and durably before it can be sent."""
        account = self.account
        if (account.head_epoch, account.head_seq) == (name.epoch, name.seq):
            return account.head_dropped
        dropped = max(0, account.lost - account.told)
        if dropped == 0 or self._oldest_at_start == (name.epoch, name.seq):
            return 0
        with self.transaction():
            self.freeze(name, dropped)
        return dropped

    def freeze(self, name: BatchName, dropped: int) -> None:
        """Write down, within a transaction, that the batch called ``name`` tells of this loss."""
        account = self.account
        account.head_epoch, account.head_seq = name.epoch, name.seq
        account.head_dropped = dropped

    def settle(self, name: BatchName, refused: Sequence[Refusal]) -> Handed | None:
        """The batch called ``name`` has arrived, but for ``refused``; None if there is none."""
        for found in (self.handed, self.overtaken):
            if found is not None and found.name == name:
                with self.transaction():
                    self._take_out(found)
                    self._count_settled(found, refused)
                self._shrink()
                return found
        return None

    def _take_out(self, found: Handed) -> None:
        if found is self.overtaken:
            self.account.count(found.reason, -found.name.of)
            self.overtaken = None
            return
        self._remove("batches", found.id, found.name.of, found.size)
        self.handed = None

    def _count_settled(self, found: Handed, refused: Sequence[Refusal]) -> None:
        account, points = self.account, found.name.of
        given_up = sum(len(refusal.batch) for refusal in refused)
        if given_up < points:
            account.told += found.dropped
        account.refused += given_up
        account.acknowledged += points - given_up
        for refusal in refused:
            self.bury(refusal)

    def bury(self, refusal: Refusal) -> None:
        """Keep what was refused, within a transaction."""
        name, body = refusal.batch.name, refusal.batch.to_json()
        if name is None:
            return
        row = Row(name.offset, name.epoch, name.seq, name.of, len(refusal.batch), body)
        values = (name.epoch, name.seq, name.offset, row.points, name.of, refusal.reason)
        self.tables.bury((*values, row.digest(), body), _MOST_DEAD_LETTERS, _MOST_DEAD_BYTES)
        self.sizes.buried = self.tables.count_buried()

    def dead_letters(self) -> list[Refusal]:
        """What was refused and is still as it was written, oldest first."""
        with translated():
            return [_refusal(*values) for values in self.tables.buried()]

    def batches(self) -> Iterator[Row]:
        """All batches, oldest first."""
        for place in self.tables.ids_as_found("batches"):
            row = self.tables.read("batches", place)
            if row is not None:
                yield row

    def hand_over(self, before: PointLog) -> None:
        """Go on with the batch that ``before``, on the same files, had handed out."""
        self._oldest_at_start = before._oldest_at_start
        self.overtaken = before.overtaken
        if before.handed is not None and self._holds(before.handed):
            self.handed = before.handed

    def _holds(self, found: Handed) -> bool:
        with translated():
            name = self.tables.name_of(found.id)
        return name == (found.name.epoch, found.name.seq)

    def settle_again(self, found: Handed, refused: Sequence[Refusal]) -> None:
        """Settle what was settled before without getting to the disk, unless it did."""
        if self._holds(found):
            handed, self.handed = self.handed, found
            self.settle(found.name, refused)
            self.handed = handed if handed is not found else None

    def take_back(self, before: Meta, epoch: str) -> None:
        """Undo a move of the batches of ``epoch``; ``before`` is the account without them."""
        with self.transaction():
            self.tables.drop_epoch(epoch)
            here = self.account
            self.account = msgspec.structs.replace(
                before, version=here.version, epoch=here.epoch, seq=here.seq
            )
            self.sizes = self._measured()

    def _shrink(self) -> None:
        """Give back what a drained backlog leaves free."""
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
