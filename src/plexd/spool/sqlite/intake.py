"""What goes into the queue of one database, and what is dropped from it to make room.

Every change is one transaction, together with the row of ``meta``. Errors of the disk are not
caught here: a failed change leaves rows, ``meta`` and object as they were.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from plexd.spool.errors import DamagedError
from plexd.spool.sqlite.budget import ROW_BYTES, Budget
from plexd.spool.sqlite.rows import Row, cut, newest
from plexd.spool.sqlite.schema import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plexd.api import BatchName
    from plexd.spool.sqlite.meta import Meta
    from plexd.spool.sqlite.steady_clock import SteadyClock
    from plexd.spool.sqlite.tables import SpoolTables

_TABLES = ("batches", "pending")
_MOST_COLLECTIONS = 1000


class Sizes(Struct):
    """What the tables hold: ``rows`` and ``batches``, ``buffered`` points, ``bytes`` as bounded.

    ``points`` is the number of points in the rows when they were last measured.
    ``front`` is the place before the oldest waiting point, ``oldest_ms`` when that came in.
    """

    rows: int = 0
    batches: int = 0
    buffered: int = 0
    points: int = 0
    bytes: int = 0
    front: int = 0
    oldest_ms: int | None = None
    dead_letters: int = 0


class Handed(Struct, frozen=True):
    """A batch that may be under way: its row, its name, the loss reported with it."""

    id: int
    name: BatchName
    size: int
    dropped: int
    reason: str = ""  # of its loss, once it was lost


class LogIntake:
    """The queue in ``tables``; ``written``, if set, is called after every transaction."""

    def __init__(
        self,
        tables: SpoolTables,
        meta: Meta,
        budget: Budget,
        steady: SteadyClock,
        max_age_ms: int,
    ) -> None:
        self.tables = tables
        self.meta = meta
        self.steady = steady
        self.written: Callable[[LogIntake], None] | None = None
        self.sizes = self._measured()
        self.handed: Handed | None = None
        self.overtaken: Handed | None = None
        # Whether the last transaction failed at its very end: it may be in the file all the same.
        self.is_in_doubt = False
        self.attempted: Row | None = None
        self._budget = budget
        self._max_age_ms = max_age_ms

    def _measured(self) -> Sizes:
        sizes = Sizes()
        with translated():
            sizes.batches, in_batches, batch_bytes = self.tables.sums("batches")
            rows, sizes.buffered, pending_bytes = self.tables.sums("pending")
            sizes.rows = rows + sizes.batches
            sizes.points = in_batches + sizes.buffered
            sizes.bytes = batch_bytes + pending_bytes + sizes.rows * ROW_BYTES
            sizes.dead_letters = self.tables.count_dead_letters()
            self._look_at_front(sizes)
        return sizes

    def _look_at_front(self, sizes: Sizes) -> None:
        oldest = self._oldest()
        sizes.front, sizes.oldest_ms = self.meta.appended, None
        if oldest is not None:
            _, place, points, _, stamped = oldest
            # A damaged place must not make the watermark say that later rows are gone.
            sizes.front = max(0, min(place - points, self.meta.appended - self.meta.waiting))
            sizes.oldest_ms = stamped

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the body together with ``meta``, or nothing."""
        before = (copy.copy(self.meta), copy.copy(self.sizes), self.handed, self.overtaken)
        self.is_in_doubt = False
        try:
            with translated():
                self.tables.begin()
                yield
                self._look_at_front(self.sizes)
                self._write_meta()
                self.is_in_doubt = True
                self.tables.commit()
                self.is_in_doubt = False
        except BaseException:
            self.meta, self.sizes, self.handed, self.overtaken = before
            self.tables.roll_back()
            raise
        if self.written is not None:
            self.written(self)

    def _write_meta(self) -> None:
        self._count_unreadable()
        self.meta.version += 1
        self.meta.steady_ms = self.steady.now_ms()
        self.meta.wall_ms = self.steady.wall_ms()
        self.tables.write_meta(self.meta)

    def _count_unreadable(self) -> None:
        """Count as damaged what ``meta`` has waiting when there is no row left."""
        if self.sizes.rows == 0 and self.meta.waiting > 0:
            self.meta.damaged += self.meta.waiting

    def append(self, body: bytes, points: int) -> None:
        """Add a collection; of one that is too large, only the newest points."""
        self.attempted = None
        with self.transaction():
            self._expire()
            self.meta.appended += points
            kept = points
            if len(body) > self._budget.transaction:
                kept, body = newest(body, self._budget.transaction)
                self.meta.evicted += points - kept
            if kept:
                self.make_room(len(body) + ROW_BYTES)
                place, now = self.meta.appended, self.steady.now_ms()
                self.attempted = Row(place, "", 0, now, kept, body)
                self.put(self.attempted)

    def put(self, row: Row) -> None:
        """Add a row to the tables and to their sizes."""
        self.tables.put(row)
        self.sizes.rows += 1
        self.sizes.bytes += len(row.body) + ROW_BYTES
        if row.seq:
            self.sizes.batches += 1
        else:
            self.sizes.buffered += row.points

    def has(self, row: Row) -> bool:
        """Return whether exactly this collection is in the file, not sealed."""
        with translated():
            return self.tables.read("pending", row.id) == row

    def make_room(self, size: int) -> None:
        """Evict the oldest rows until ``size`` bytes fit."""
        while self.sizes.bytes + size > self._budget.rows and (oldest := self._oldest()):
            self._lose(oldest, "evicted")

    def _expire(self) -> None:
        limit = self.steady.now_ms() - self._max_age_ms
        while (oldest := self._oldest()) is not None and oldest[4] < limit:
            self._lose(oldest, "expired")

    def _oldest(self) -> tuple[str, int, int, int, int] | None:
        found = [
            (table, *outline)
            for table in _TABLES
            if (outline := self.tables.outline(table)) is not None
        ]
        return min(found, key=lambda row: row[1], default=None)

    def _lose(self, row: tuple[str, int, int, int, int], reason: str) -> None:
        table, place, points, size, _ = row
        points = min(points, self.meta.waiting)
        self._remove(table, place, points, size)
        self.meta.count(reason, points)
        if self.handed is not None and (table, place) == ("batches", self.handed.id):
            self.overtaken = msgspec.structs.replace(self.handed, reason=reason)
            self.handed = None

    def _remove(self, table: str, place: int, points: int, size: int) -> None:
        self.tables.drop(table, place)
        self.sizes.rows -= 1
        self.sizes.bytes -= size + ROW_BYTES
        if table == "batches":
            self.sizes.batches -= 1
        else:
            self.sizes.buffered -= points

    def seal(self, limit: int) -> None:
        """Turn collections into batches, at most a transaction's worth of them at a time."""
        while self.sizes.rows > self.sizes.batches:
            with self.transaction():
                self._expire()
                self._seal_some(limit)

    def _seal_some(self, limit: int) -> None:
        rows = self._some_collections()
        for row in rows:
            self._remove("pending", row.id, row.points, len(row.body))
        if rows:
            for batch in cut(rows, limit, self.meta.epoch, self.meta.seq + 1):
                self.put(batch)
                self.meta.seq = batch.seq
        self.make_room(0)

    def _some_collections(self) -> list[Row]:
        """Return the oldest that are not sealed, as many as one transaction may hold."""
        places = self.tables.first_ids("pending", _MOST_COLLECTIONS)
        if not places and self.sizes.rows > self.sizes.batches:
            raise DamagedError("rows that were counted cannot be found")
        rows: list[Row] = []
        size = 0
        for place in places:
            row = self.tables.read("pending", place)
            if row is None:
                self._quarantine("pending", place)
                continue
            size += len(row.body)
            if rows and size > self._budget.transaction:
                break
            rows.append(row)
        return rows

    def _quarantine(self, table: str, place: int) -> None:
        """Drop a row that is not as it was written.

        How many points it held follows from ``meta`` and the other rows: the row cannot be trusted.
        """
        self.tables.drop(table, place)
        self.sizes = self._measured()
        self.meta.damaged += max(0, self.meta.waiting - self.sizes.points)
