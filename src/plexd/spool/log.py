"""The log of points: what is appended, what is at the head, and what becomes of the rest.

Every change is one transaction, together with `Meta`. Errors of the disk are not caught here: a
change that failed leaves rows, meta and object as they were.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from plexd.spool.port import LOSSES, SpoolStatistics
from plexd.spool.rows import Row, Sizes, assemble, kind_of, whole_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from plexd.api import BatchName, MetricBatch
    from plexd.spool.budget import Budget
    from plexd.spool.chain import Chain
    from plexd.spool.clocks import SteadyClock
    from plexd.spool.meta import Meta
    from plexd.spool.port import Refusal
    from plexd.spool.rows import Outline, Rows

_NONE = float("-inf")


class Counted(Protocol):
    """A log of which statistics are made."""

    clock: SteadyClock

    @property
    def meta(self) -> Meta: ...
    @property
    def sizes(self) -> Sizes: ...


def statistics_of(logs: Sequence[Counted], degraded: str = "") -> SpoolStatistics:
    """Return the sum of what ``logs`` know."""
    metas, sizes = [log.meta for log in logs], [log.sizes for log in logs]
    counts = ("appended", "acknowledged", *LOSSES, "waiting")
    return SpoolStatistics(
        **{name: sum(getattr(meta, name) for meta in metas) for name in counts},
        stored_bytes=sum(each.bytes for each in sizes),
        oldest_seconds=max(map(_age_ms, logs), default=0) / 1000,
        dead_letters=sum(each.dead_letters for each in sizes),
        degraded=degraded,
    )


def _age_ms(log: Counted) -> int:
    oldest = log.sizes.oldest_ms
    return 0 if oldest is None else max(0, log.clock.now_ms() - oldest)


class PointLog:
    """A bounded log of named points in ``rows``.

    It goes on from ``meta``. ``on_commit`` ends each transaction; it is called with `meta` and with
    the number before the oldest waiting point.

    Attributes:
        clock: the clock by which ages are measured.
        is_in_doubt: whether the last transaction failed at its very end: it may be in the file.
        added: the rows that were added last.
    """

    def __init__(
        self,
        rows: Rows,
        meta: Meta,
        budget: Budget,
        clock: SteadyClock,
        on_commit: Callable[[Meta, int], None] | None = None,
    ) -> None:
        self.clock = clock
        self.is_in_doubt = False
        self.added: list[Row] = []
        self._rows = rows
        self._meta = meta
        self._budget = budget
        self._on_commit = on_commit
        self._under_way: MetricBatch | None = None
        self._overtaken: dict[str, int] = {}  # points of it that were lost since, by reason
        self._sizes = self._measured()

    @property
    def meta(self) -> Meta:
        """What it knows about its points as a whole, as of now."""
        return replace(self._meta, chain=replace(self._meta.chain))

    @property
    def sizes(self) -> Sizes:
        """What its rows hold, as of now."""
        return replace(self._sizes)

    def _oldest(self) -> Outline | None:
        return next(self._rows.outlines(), None)

    def _measured(self) -> Sizes:
        sizes, oldest = self._rows.measure(), self._oldest()
        if oldest is not None:
            sizes.points -= oldest.points - self._left(oldest)
        self._look_at_front(sizes)
        return sizes

    def _left(self, row: Row | Outline) -> int:
        """Return how many points of a row wait: those of the head may have left in part."""
        if row.epoch != self._meta.chain.head:
            return row.points
        return max(0, min(row.points, row.place - self._meta.chain.passed))

    def _look_at_front(self, sizes: Sizes) -> None:
        sizes.front, sizes.oldest_ms = self._meta.appended, None
        if (oldest := self._oldest()) is not None:
            # A damaged number must not make the watermark say that later rows are gone.
            most = self._meta.appended - self._meta.waiting
            sizes.front = max(0, min(oldest.id - oldest.points, most))
            sizes.oldest_ms = oldest.stamped

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit everything in the body together with ``meta``, or nothing."""
        before = (self.meta, self.sizes, self._under_way, self._overtaken)
        self.is_in_doubt, self.added = False, []
        try:
            with self._rows.transaction():
                yield
                self._look_at_front(self._sizes)
                self._write_meta()
                self.is_in_doubt = True
            if self._on_commit is not None:
                self._on_commit(self._meta, self._sizes.front)
        except BaseException:
            self._meta, self._sizes, self._under_way, self._overtaken = before
            raise
        self.is_in_doubt = False

    def _write_meta(self) -> None:
        meta = self._meta
        if self._sizes.oldest_ms is None and meta.waiting > 0:
            self._count_damaged(meta.waiting)
        meta.version += 1
        self.clock.stamp(meta)
        self._rows.write_meta(meta)

    def _count_damaged(self, points: int) -> None:
        self._meta.damaged += points
        self._meta.chain.lose(points)

    # In

    def append(self, runs: Sequence[MetricBatch]) -> None:
        """Name and add a collection; of one that is too large, only the newest points."""
        self._watch_clock()
        with self._transaction():
            self._add(list(self._fitting([self._named(run) for run in runs])))

    def _named(self, run: MetricBatch) -> Row:
        meta, points = self._meta, len(run)
        meta.appended += points
        meta.chain.place += points
        names = (meta.appended, meta.chain.epoch, meta.chain.place)
        return Row(*names, self.clock.now_ms(), kind_of(run[0]), points, run.to_json())

    def _fitting(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield what of ``rows`` fits a transaction, and count the rest as evicted."""
        excess = sum(len(row.body) for row in rows) - self._budget.transaction
        for row in rows:
            kept = row if excess <= 0 else row.newest_within(len(row.body) - excess)
            excess -= len(row.body)
            self._meta.evicted += row.points - kept.points
            if kept.points:
                yield kept

    def _add(self, rows: list[Row]) -> None:
        self.added = rows
        self._make_room(sum(len(row.body) + self._rows.row_bytes for row in rows))
        for row in rows:
            self._put(row)

    def _put(self, row: Row) -> None:
        self._rows.put(row)
        self._sizes.bytes += len(row.body) + self._rows.row_bytes

    def _drop(self, number: int, body_bytes: int) -> None:
        self._rows.drop(number)
        self._sizes.bytes -= body_bytes + self._rows.row_bytes

    def _watch_clock(self) -> None:
        """Begin an epoch if this may be another machine's memory than a moment ago."""
        if self.clock.has_stepped():
            self.begin_epoch()

    def begin_epoch(self, fresh: str = "") -> None:
        """Name what is appended from now on in an epoch that nobody has used.

        This is a commit of its own, which fails if the disk accepts no writes.
        """
        with self._transaction():
            self._meta.chain.begin(fresh or self.clock.new_epoch())

    def come_after(self, before: Chain) -> None:
        """Note what was delivered last of the log before this, as long as nothing was of this."""
        meta = self._meta
        if not meta.acknowledged + meta.refused + meta.clashed:
            meta.chain.before_epoch, meta.chain.before_place = before.answered

    # Losses

    def _make_room(self, size: float = _NONE) -> None:
        """Lose the oldest rows until none is too old and ``size`` bytes fit."""
        while surplus := self._surplus(size):
            self._lose_oldest(*surplus)

    def _surplus(self, size: float = _NONE) -> tuple[Outline, str] | None:
        oldest = self._oldest()
        if oldest is not None:
            if oldest.stamped < self.clock.now_ms() - self._budget.max_age_ms:
                return oldest, "expired"
            if self._sizes.bytes + size > self._budget.rows:
                return oldest, "evicted"
        return None

    def _lose_oldest(self, oldest: Outline, reason: str) -> None:
        row = self._rows.read(oldest.id)
        if row is None:
            self._quarantine(oldest)
        else:
            self._lose(row, reason)

    def _lose(self, row: Row, reason: str) -> None:
        chain = self._meta.chain
        chain.reach(row.epoch)
        points = self._left(row)
        self._drop(row.id, len(row.body))
        if points:
            self._meta.count(reason, points)
            chain.drop(row.place, points)
            self._overtake(row.place - points, row.place, reason)

    def _overtake(self, after: int, last: int, reason: str) -> None:
        """Note that the lost places may arrive all the same, if they are in the batch under way."""
        name = self._under_way.name if self._under_way is not None else None
        if name is not None and name.epoch == self._meta.chain.sent_as:
            shared = max(0, min(name.last, last) - max(name.first - 1, after))
            self._overtaken = {**self._overtaken, reason: self._overtaken.get(reason, 0) + shared}

    def _quarantine(self, oldest: Outline) -> None:
        """Drop the oldest row, which is not as it was written.

        How many points it held follows from ``meta`` and the other rows: the row cannot be trusted.
        Nor can its epoch, unless the row behind it has the same: then its places tell of the loss.
        """
        self._rows.drop(oldest.id)
        self._sizes = self._measured()
        after = self._oldest()
        if after is not None and after.epoch == oldest.epoch != "":
            self._meta.chain.reach(oldest.epoch)
        self._count_damaged(max(0, self._meta.waiting - self._sizes.points))

    # Out

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points that are as they were written, at most ``limit``."""
        self._watch_clock()
        self._hand_out(None)
        if self._surplus():
            with self._transaction():
                self._make_room()
        while (oldest := self._oldest()) is not None:
            if batch := assemble(whole_rows(self._rows), self._meta.chain, limit):
                return self._hand_out(batch)
            with self._transaction():
                self._lose_oldest(oldest, "damaged")
        return None

    def _hand_out(self, batch: MetricBatch | None) -> MetricBatch | None:
        self._under_way, self._overtaken = batch, {}
        return batch

    def acknowledge(self, name: BatchName) -> bool:
        """Drop the points called ``name``, which arrived; return whether they were here."""
        sent = self._under_way
        overtaken = self._overtaken if sent is not None and sent.name == name else {}
        if not self._ahead(name) and not any(overtaken.values()):
            return False
        with self._transaction():
            self._find_again(name, overtaken)
            if self._ahead(name):
                points = self._take_out(name)
                self._meta.acknowledged += points
                reported = sent.dropped if sent is not None else 0
                self._meta.chain.acknowledge(name.last, points, reported)
            self._hand_out(None)
        return True

    def _find_again(self, name: BatchName, overtaken: dict[str, int]) -> None:
        """Take back the loss of points that arrived all the same."""
        points = sum(overtaken.values())
        if points and (sent := self._under_way) is not None and sent.after is not None:
            for reason, count in overtaken.items():
                self._meta.count(reason, -count)
            self._meta.acknowledged += points
            self._meta.chain.find_again(name, points, sent.dropped + sent.after.skipped)

    def _ahead(self, name: BatchName) -> int:
        chain, oldest = self._meta.chain, self._oldest()
        if oldest is not None and oldest.epoch:
            chain.reach(oldest.epoch)
        return chain.ahead(name)

    def _take_out(self, name: BatchName) -> int:
        """Drop the rows that end with ``name`` at the latest; return how many points leave."""
        chain = self._meta.chain
        points, found = chain.ahead(name), 0
        while (oldest := self._oldest()) is not None and oldest.epoch == chain.head:
            found += min(self._left(oldest), max(0, name.last - oldest.place + oldest.points))
            if oldest.place > name.last:
                break
            self._drop(oldest.id, oldest.bytes)
        if found != points:  # some were damaged while under way, and may be counted already
            points = min(points, max(found, self._meta.waiting - self._measured().points))
        return points

    def set_aside(self, refusal: Refusal) -> bool:
        """Give up a batch at the head and keep it as a dead letter."""
        name = refusal.batch.name
        if name is None or not self._ahead(name):
            return False
        with self._transaction():
            points = self._take_out(name)
            self._meta.refused += points
            self._meta.chain.refuse(name.last, points)
            self._sizes.dead_letters = self._rows.add_dead_letter(refusal)
            self._hand_out(None)
        return True

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused, oldest first."""
        return self._rows.dead_letters()

    # Clashes

    def rename(self, name: BatchName, upto: int, newest: datetime) -> bool:
        """Rename what waits under the epoch of ``name``; what is appended gets a fresh one.

        Returns whether ``name`` is at the head.
        """
        if not self._ahead(name):
            return False
        with self._transaction():
            chain = self._meta.chain
            lost = self._drop_clashing(upto, newest)
            self._meta.clashed += lost
            oldest = self._oldest()
            if oldest is not None and oldest.epoch == chain.head:
                lost = oldest.place - self._left(oldest) - chain.passed
            chain.rename(newest, lost)
            chain.begin(self.clock.new_epoch())
            self._hand_out(None)
        return True

    def _drop_clashing(self, upto: int, newest: datetime) -> int:
        """Drop the points of the head that do not keep their places; return how many."""
        lost = 0
        for outline in list(self._rows.outlines()):
            if outline.epoch != self._meta.chain.head or outline.place - outline.points >= upto:
                break
            if (row := self._rows.read(outline.id)) is not None:
                lost += self._keep_survivors(row, upto, newest)
        return lost

    def _keep_survivors(self, row: Row, upto: int, newest: datetime) -> int:
        waiting = row.last_points(self._left(row))
        survivors = list(waiting.survivors(upto, newest))
        self._drop(row.id, len(row.body))
        for part in survivors:
            self._put(part)
        return waiting.points - sum(part.points for part in survivors)

    # From another log

    def hand_over(self, log: PointLog) -> None:
        """Let ``log``, on the same files, go on where this one failed: with the batch under way."""
        log._under_way, log._overtaken = self._under_way, self._overtaken  # of the same class
        log.restore(self)

    def restore(self, before: PointLog) -> None:
        """Add the rows of which ``before`` does not know whether they are here, if they are not.

        They keep their names.
        """
        rows = before.added if before.is_in_doubt else []
        if not all(self._rows.read(row.id) == row for row in rows):
            with self._transaction():
                self._add([self._renumbered(row) for row in rows])

    def _renumbered(self, row: Row, older_by: int = 0) -> Row:
        self._meta.appended += row.points
        return replace(row, id=self._meta.appended, stamped=row.stamped + older_by)

    def absorb(self, memory: PointLog) -> None:
        """Move everything of ``memory`` behind what is here, in one transaction.

        Its points keep their names, ages and order, and its epoch goes on here. It has to be thrown
        away afterwards. A move that failed at its very end is not repeated if it is here after all.
        """
        theirs = memory.meta
        if self._meta.absorbed == theirs.chain.epoch:
            return
        older_by = self.clock.now_ms() - memory.clock.now_ms()
        with self._transaction():
            was_empty = self._oldest() is None
            self._add([self._renumbered(row, older_by) for row in memory._waiting()])  # its class
            for reason in ("acknowledged", *LOSSES):
                self._meta.count(reason, getattr(theirs, reason))
            self._meta.appended += theirs.appended - theirs.waiting
            for refusal in memory.dead_letters():
                self._sizes.dead_letters = self._rows.add_dead_letter(refusal)
            is_empty = not theirs.waiting
            self._meta.chain.absorb(theirs.chain, was_empty=was_empty, is_empty=is_empty)
            self._meta.absorbed = theirs.chain.epoch

    def _waiting(self) -> Iterator[Row]:
        """Yield all rows, without the points that have left, under the epochs they are sent as."""
        chain = self._meta.chain
        for outline in self._rows.outlines():
            row = self._rows.read(outline.id)
            if row is not None:
                epoch = chain.sent_as if row.epoch == chain.head else row.epoch
                yield replace(row.last_points(self._left(row)), epoch=epoch)
