"""The log of points in one database.

Every change is one transaction, together with ``meta``. Errors of the disk are not caught here: a
change that failed leaves rows, ``meta`` and object as they were.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from plexd.api import MetricBatch
from plexd.spool.port import LOSSES
from plexd.spool.sqlite.budget import ROW_BYTES, Budget
from plexd.spool.sqlite.dead_letters import DeadLetters
from plexd.spool.sqlite.rows import Row, assemble
from plexd.spool.sqlite.schema import translated
from plexd.spool.sqlite.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from plexd.api import BatchName
    from plexd.spool.port import Refusal
    from plexd.spool.sqlite.meta import Meta
    from plexd.spool.sqlite.steady_clock import SteadyClock
    from plexd.spool.sqlite.tables import Outline, SpoolTables

# Free pages are given back once they are most of the file, some at a time.
_SHRINK_PAGES = 64


class Run(NamedTuple):
    """Points of one collection and of one kind, as a JSON array."""

    kind: int
    points: int
    body: bytes


class Sizes(Struct):
    """What the tables hold.

    Attributes:
        rows: rows of the log.
        bytes: their bodies and `ROW_BYTES` for each, as `Budget` bounds it.
        points: points that waited in the rows when they were last measured.
        front: the number before the oldest row's first point, in the stream of all points.
        oldest_ms: when the oldest row came in; None without rows.
        dead_letters: refused batches that are kept.
    """

    rows: int = 0
    bytes: int = 0
    points: int = 0
    front: int = 0
    oldest_ms: int | None = None
    dead_letters: int = 0


class _UnderWay(Struct):
    """The batch that was handed out last, and what was lost of it since, by reason."""

    name: BatchName
    dropped: int
    skipped: int
    overtaken: dict[str, int]

    def overlap(self, row: Row, sent_as: str) -> int:
        """Return how many points of ``row`` are in the batch."""
        if self.name.epoch != sent_as:
            return 0
        shared = min(self.name.last, row.place) - max(self.name.first, row.first) + 1
        return max(0, shared)


class PointLog:
    """A bounded log of named points in ``tables``.

    It goes on from ``meta``. ``on_commit`` is called after each transaction with how far the log
    has come.

    Attributes:
        is_in_doubt: whether the last transaction failed at its very end: it may be in the file.
        attempted: the rows of the last `append`.
    """

    def __init__(
        self,
        tables: SpoolTables,
        meta: Meta,
        budget: Budget,
        steady: SteadyClock,
        max_age_ms: int,
        on_commit: Callable[[Watermark], None] | None = None,
    ) -> None:
        self.is_in_doubt = False
        self.attempted: tuple[Row, ...] = ()
        self._tables = tables
        self._meta = meta
        self._budget = budget
        self._steady = steady
        self._max_age_ms = max_age_ms
        self._on_commit = on_commit
        self._letters = DeadLetters(tables)
        self._under_way: _UnderWay | None = None
        self._sizes = self._measured()

    def _measured(self) -> Sizes:
        with translated():
            rows, points, size = self._tables.sums()
            oldest = self._tables.oldest()
            if oldest is not None:
                points -= oldest.points - self._left(oldest)
            letters = self._tables.count_dead_letters()
            sizes = Sizes(rows, size + rows * ROW_BYTES, points, dead_letters=letters)
            self._look_at_front(sizes)
        return sizes

    def _left(self, row: Row | Outline) -> int:
        """Return how many points of a row wait: those of the head may have left in part."""
        if row.epoch != self._meta.chain.head:
            return row.points
        return max(0, min(row.points, row.place - self._meta.chain.passed))

    def _look_at_front(self, sizes: Sizes) -> None:
        oldest = self._tables.oldest()
        sizes.front, sizes.oldest_ms = self._meta.appended, None
        if oldest is not None:
            # A damaged number must not make the watermark say that later rows are gone.
            most = self._meta.appended - self._meta.waiting
            sizes.front = max(0, min(oldest.id - oldest.points, most))
            sizes.oldest_ms = oldest.stamped

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit everything in the body together with ``meta``, or nothing."""
        before = (self._meta.copy(), copy.copy(self._sizes), copy.deepcopy(self._under_way))
        self.is_in_doubt = False
        try:
            with translated(), self._tables.transaction():
                yield
                self._look_at_front(self._sizes)
                self._write_meta()
                self.is_in_doubt = True
        except BaseException:
            self._meta, self._sizes, self._under_way = before
            raise
        self.is_in_doubt = False
        if self._on_commit is not None:
            self._on_commit(self.watermark())

    def _write_meta(self) -> None:
        meta = self._meta
        if self._sizes.rows == 0 and meta.waiting > 0:
            self._count_damaged(meta.waiting)
        meta.version += 1
        self._steady.stamp(meta)
        self._tables.write_meta(meta)

    def _count_damaged(self, points: int) -> None:
        self._meta.damaged += points
        self._meta.chain.lose(points)

    def watermark(self) -> Watermark:
        """Return how far this log has come."""
        return Watermark.of(self._meta, self._sizes.front)

    def commit(self) -> None:
        """Commit a transaction that changes nothing: it fails if the disk accepts no writes."""
        with self._transaction():
            pass

    def append(self, runs: Sequence[Run]) -> None:
        """Name and add a collection; of one that is too large, only the newest points."""
        self.attempted = ()
        with self._transaction():
            self._expire()
            rows = list(self._named(runs))
            self._make_room(sum(len(row.body) + ROW_BYTES for row in rows))
            for row in rows:
                self._put(row)
            self.attempted = tuple(rows)

    def _named(self, runs: Sequence[Run]) -> Iterator[Row]:
        meta, now = self._meta, self._steady.now_ms()
        rows: list[Row] = []
        for kind, points, body in runs:
            meta.appended += points
            place = meta.chain.append(points)
            rows.append(Row(meta.appended, meta.chain.epoch, place, now, kind, points, body))
        return self._newest_of(rows)

    def _newest_of(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield what of ``rows`` fits a transaction, and count the rest as evicted."""
        excess = sum(len(row.body) for row in rows) - self._budget.transaction
        for row in rows:
            kept: Row | None = row
            if excess > 0:
                kept = row.newest_within(len(row.body) - excess)
                excess -= len(row.body)
            self._meta.evicted += row.points - (kept.points if kept is not None else 0)
            if kept is not None:
                yield kept

    def _put(self, row: Row) -> None:
        self._tables.put(row)
        self._sizes.rows += 1
        self._sizes.bytes += len(row.body) + ROW_BYTES

    def _drop(self, number: int, body_bytes: int) -> None:
        self._tables.drop(number)
        self._sizes.rows -= 1
        self._sizes.bytes -= body_bytes + ROW_BYTES

    def _make_room(self, size: int) -> None:
        """Evict the oldest rows until ``size`` bytes fit."""
        while self._sizes.rows and self._sizes.bytes + size > self._budget.rows:
            self._lose_oldest("evicted")

    def _expire(self) -> None:
        limit = self._steady.now_ms() - self._max_age_ms
        while (oldest := self._tables.oldest()) is not None and oldest.stamped < limit:
            self._lose_oldest("expired")

    def _lose_oldest(self, reason: str) -> None:
        row = self._read_oldest()
        if row is None:
            return
        chain, points = self._meta.chain, self._left(row)
        self._drop(row.id, len(row.body))
        self._meta.count(reason, points)
        if self._under_way is not None and (lost := self._under_way.overlap(row, chain.sent_as)):
            counts = self._under_way.overtaken
            counts[reason] = counts.get(reason, 0) + min(lost, points)
        chain.drop(row.place, points)

    def _read_oldest(self) -> Row | None:
        """Return the oldest row and make its epoch the head; None if there was no good one.

        A row that is not as it was written is dropped, within a transaction.
        """
        oldest = self._tables.oldest()
        if oldest is None:
            self._sizes = self._measured()
            return None
        row = self._tables.read(oldest.id)
        if row is None:
            self._quarantine(oldest.id)
        else:
            self._meta.chain.reach(row.epoch)
        return row

    def _quarantine(self, number: int) -> None:
        """Drop a row that is not as it was written.

        How many points it held follows from ``meta`` and the other rows: the row cannot be trusted.
        """
        self._tables.drop(number)
        self._sizes = self._measured()
        self._count_damaged(max(0, self._meta.waiting - self._sizes.points))

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points that are as they were written, at most ``limit``."""
        self._under_way = None
        while (oldest := self._first()) is not None:
            with translated():
                row = self._tables.read(oldest.id)
                if row is not None and self._reached(row):
                    return self._hand_out(row, limit)
            with self._transaction():
                self._leave_out(oldest, row)
        return None

    def _first(self) -> Outline | None:
        """Return the oldest row that is not too old."""
        with translated():
            oldest = self._tables.oldest()
        if oldest is not None and oldest.stamped < self._steady.now_ms() - self._max_age_ms:
            with self._transaction():
                self._expire()
                oldest = self._tables.oldest()
        return oldest

    def _reached(self, row: Row) -> bool:
        self._meta.chain.reach(row.epoch)
        return self._left(row) > 0

    def _leave_out(self, oldest: Outline, row: Row | None) -> None:
        if row is None:
            self._quarantine(oldest.id)
        else:
            self._drop(oldest.id, oldest.bytes)

    def _hand_out(self, oldest: Row, limit: int) -> MetricBatch | None:
        chain = self._meta.chain
        found = assemble(self._rows_from(oldest), chain.passed, limit, chain.sent_as)
        if found is None:
            return None
        body, name = found
        after, dropped = chain.predecessor, chain.dropped
        self._under_way = _UnderWay(name, dropped, after.skipped, {})
        return MetricBatch.of_json(body, name, dropped=dropped, after=after)

    def _rows_from(self, oldest: Row) -> Iterator[Row]:
        yield oldest
        for outline in self._tables.outlines(oldest.id):
            row = self._tables.read(outline.id)
            if row is None:
                return
            yield row

    def acknowledge(self, name: BatchName) -> bool:
        """Drop the points called ``name``, which arrived; return whether they were here."""
        if not self._is_ahead(name) and not self._is_overtaken(name):
            return False
        with self._transaction():
            self._find_again(name)
            if self._is_ahead(name):
                reported = self._under_way.dropped if self._under_way is not None else 0
                points = self._take_out(name)
                self._meta.acknowledged += points
                self._meta.chain.acknowledge(name.last, reported)
            self._under_way = None
        self._shrink()
        return True

    def _is_ahead(self, name: BatchName) -> bool:
        """Return whether points called ``name`` are at the head."""
        with translated():
            oldest = self._tables.oldest()
        if oldest is not None and oldest.epoch:
            self._meta.chain.reach(oldest.epoch)
        chain = self._meta.chain
        return name.epoch == chain.sent_as and chain.passed < name.last

    def _is_overtaken(self, name: BatchName) -> bool:
        return (
            self._under_way is not None
            and self._under_way.name == name
            and bool(self._under_way.overtaken)
        )

    def _find_again(self, name: BatchName) -> None:
        """Count as acknowledged what was lost here while it was under way."""
        if self._under_way is None or not self._is_overtaken(name):
            return
        counts = self._under_way.overtaken
        for reason, points in counts.items():
            self._meta.count(reason, -points)
            self._meta.acknowledged += points
        skipped = self._under_way.skipped
        self._meta.chain.find_again(name, sum(counts.values()), skipped)

    def _take_out(self, name: BatchName) -> int:
        """Drop the rows that end with ``name`` at the latest; return how many points leave."""
        chain = self._meta.chain
        points = name.last - max(chain.passed, name.first - 1)
        while (oldest := self._tables.oldest()) is not None:
            if oldest.epoch != chain.head or oldest.place > name.last:
                break
            self._drop(oldest.id, oldest.bytes)
        return min(points, self._meta.waiting)

    def set_aside(self, refusal: Refusal) -> bool:
        """Give up a batch at the head and keep it as a dead letter."""
        name = refusal.batch.name
        if name is None or not self._is_ahead(name):
            return False
        with self._transaction():
            points = self._take_out(name)
            self._meta.refused += points
            self._meta.chain.drop(name.last, points)
            self._add_dead_letter(refusal)
            self._under_way = None
        return True

    def _add_dead_letter(self, refusal: Refusal) -> None:
        self._letters.add(refusal)
        self._sizes.dead_letters = self._tables.count_dead_letters()

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused and is still as it was written, oldest first."""
        with translated():
            return self._letters.read()

    def rename(self, name: BatchName, upto: int, newest: datetime, fresh: str) -> bool:
        """Rename what waits under the epoch of ``name``; what is appended gets the ``fresh`` one.

        Returns whether ``name`` is at the head.
        """
        if not self._is_ahead(name):
            return False
        with self._transaction():
            chain = self._meta.chain
            lost = self._drop_clashing(upto, newest)
            self._meta.clashed += lost
            oldest = self._tables.oldest()
            if oldest is not None and oldest.epoch == chain.head:
                chain.rename(newest, oldest.place - self._left(oldest) - chain.passed)
            else:
                chain.rename(newest, lost)
            chain.begin(fresh)
            self._under_way = None
        return True

    def _drop_clashing(self, upto: int, newest: datetime) -> int:
        """Drop the points of the head that do not keep their places; return how many."""
        lost, behind = 0, -(2**63)
        for outline in self._tables.outlines():
            if outline.epoch != self._meta.chain.head or outline.place - outline.points >= upto:
                break
            row = self._tables.read(outline.id)
            if row is not None and outline.id > behind:
                lost += self._keep_survivors(row, upto, newest)
            behind = outline.id
        return lost

    def _keep_survivors(self, row: Row, upto: int, newest: datetime) -> int:
        waiting = row.part(row.points - self._left(row), row.points)
        survivors = list(waiting.survivors(upto, newest))
        if survivors == [row]:
            return 0
        self._drop(row.id, len(row.body))
        for part in survivors:
            self._put(part)
        return waiting.points - sum(part.points for part in survivors)

    def begin_epoch(self, fresh: str) -> None:
        """Name what is appended from now on in the epoch ``fresh``."""
        self._meta.chain.begin(fresh)

    def holds(self, rows: Sequence[Row]) -> bool:
        """Return whether exactly these rows are in the file."""
        with translated():
            return all(self._tables.read(row.id) == row for row in rows)

    def restore(self, rows: Sequence[Row]) -> None:
        """Add rows that were named before, behind all others, with the names they have."""
        self.attempted = ()
        with self._transaction():
            self._make_room(sum(len(row.body) + ROW_BYTES for row in rows))
            self.attempted = tuple(self._restored(row) for row in rows)
            for row in self.attempted:
                self._put(row)

    def _restored(self, row: Row, older_by: int = 0) -> Row:
        self._meta.appended += row.points
        names = (self._meta.appended, row.epoch, row.place, row.stamped + older_by)
        return Row(*names, row.kind, row.points, row.body)

    def absorb(self, memory: PointLog) -> None:
        """Move everything of ``memory`` behind what is here, in one transaction.

        Its points keep their names, ages and order, and its epoch goes on here. It has to be
        thrown away afterwards.
        """
        source = memory._meta  # of the same class
        with self._transaction():
            self._make_room(memory._sizes.bytes)
            older_by = self._steady.now_ms() - memory._steady.now_ms()
            waiting = source.waiting
            for row in memory._waiting_rows():
                self._put(self._restored(row, older_by))
            for name in ("acknowledged", *LOSSES):
                self._meta.count(name, getattr(source, name))
            self._meta.appended += source.appended - waiting
            for refusal in memory.dead_letters():
                self._add_dead_letter(refusal)
            self._meta.chain.absorb(source.chain, is_empty=not waiting)
            self._meta.absorbed = source.chain.epoch

    def _waiting_rows(self) -> Iterator[Row]:
        """Yield all rows, without the points that have left, under the epochs they are sent as."""
        chain = self._meta.chain
        for outline in self._tables.outlines():
            row = self._tables.read(outline.id)
            if row is None:
                continue
            left = row.part(row.points - self._left(row), row.points)
            epoch = chain.sent_as if row.epoch == chain.head else row.epoch
            yield Row(left.id, epoch, left.place, left.stamped, left.kind, left.points, left.body)

    def has_absorbed(self, memory: PointLog) -> bool:
        """Return whether an `absorb` that failed at its very end was committed after all."""
        return self._meta.absorbed == memory._meta.chain.epoch  # of the same class

    def hand_over(self, before: PointLog) -> None:
        """Go on with the batch that ``before``, on the same files, had handed out."""
        self._under_way = before._under_way  # of the same class

    def _shrink(self) -> None:
        """Give the pages that a drained backlog left free back to the disk."""
        with translated():
            free, pages = self._tables.free_pages()
            if free > _SHRINK_PAGES and free > pages // 2:
                self._tables.shrink(_SHRINK_PAGES)

    @property
    def meta(self) -> Meta:
        """What it knows about its points as a whole, as of now."""
        return self._meta.copy()

    @property
    def sizes(self) -> Sizes:
        """What its tables hold, as of now."""
        return copy.copy(self._sizes)

    @property
    def steady(self) -> SteadyClock:
        """The clock by which it measures ages."""
        return self._steady

    def close(self) -> None:
        """Close the database."""
        self._tables.close()

    def abandon(self) -> None:
        """Close the database and leave the files as they are."""
        self._tables.abandon()
