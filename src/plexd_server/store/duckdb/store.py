"""The embedded store: a journal that makes reports durable, and a database that answers.

A write is acknowledged when the journal has it on the disk (`Journal`, one fsync for all that came
meanwhile). The tables are filled from it in strokes (`Filler`, `Tables`); with them goes the number
of the journal's last record in them, so that after a kill at any moment the rest, and only that, is
filled in again. Whoever asks sees all that was acknowledged before.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd_server.errors import JournalDamaged, StartError, StoreBusy, StoreClosed, StoreError
from plexd_server.store.duckdb import ledger_tables, schema
from plexd_server.store.duckdb.columns import ReportPoints
from plexd_server.store.duckdb.fault_log import FaultLog
from plexd_server.store.duckdb.journal import Journal
from plexd_server.store.duckdb.loader import Addition, Filler
from plexd_server.store.duckdb.mark_cache import Draft, Marks
from plexd_server.store.duckdb.records import TRIAL, decode_record, encode_record
from plexd_server.store.duckdb.rows import read_fleet, read_latest, read_ledger, read_marks, utc
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.duckdb.writer import GroupWriter
from plexd_server.store.port import Receipt, Report, Series, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from pathlib import Path
    from typing import TypeVar

    import duckdb

    from plexd_server.store.marks import Mark
    from plexd_server.store.port import Ledger, NodeSummary, SeriesQuery, StoredPoint

    T = TypeVar("T")

__all__ = ["FILE_NAME", "JOURNAL_NAME", "DuckDBStore"]

FILE_NAME = "points.duckdb"
JOURNAL_NAME = "journal"
_READERS = 2
_NOTHING = Report("", (), datetime.min.replace(tzinfo=UTC))
_REPLAYED_AT_ONCE = 1000
_EVER = datetime(1, 1, 1, tzinfo=UTC)


class DuckDBStore:
    """A `Store` in ``data_dir``. Opens on construction, which blocks; raises `StartError`.

    ``memory`` is DuckDB's own limit (``"256MB"``); a query that needs more spills to the data
    directory. ``max_pending_points`` bounds what waits for the journal, and what of the journal
    waits for the tables.
    """

    def __init__(
        self, data_dir: Path, *, memory: str = "256MB", max_pending_points: int = 200_000
    ) -> None:
        clock = SystemClock()
        self._max_pending = max_pending_points
        self._journalling = FaultLog("writing", clock)
        self._filling = FaultLog("filling", clock)
        self._tables = Tables(
            data_dir / FILE_NAME, memory, filling=self._filling, reading=FaultLog("reading", clock)
        )
        self._marks = Marks(self._tables.marks(), self._find_mark)
        self._filler = Filler(self._fill)
        try:
            self._open_journal(data_dir / JOURNAL_NAME)
        except BaseException:
            self._filler.close()
            self._tables.close()
            raise
        self._writer = GroupWriter(
            self._commit, max_points=max_pending_points, faults=self._journalling
        )
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._closing: asyncio.Task[None] | None = None

    async def write(self, report: Report) -> Receipt:
        """Journal the points together with whatever else is waiting, then return."""
        if not report.points and not report.rejected:
            return Receipt(accepted=0)
        if self._filler.backlog >= self._max_pending:
            raise StoreBusy("too much is waiting to be stored; try again in a moment")
        return await self._writer.write(report)

    async def ledger(self, node_id: str) -> Ledger:
        """The marks of all epochs added up, and the losses that were noted."""
        return await self._read(lambda c: read_ledger(c, node_id, self._marks.of_node(node_id)))

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """Looked for around the time that the marks tell."""
        newest = self._marks.newest_of(node_id)
        return await self._read(lambda cursor: read_latest(cursor, node_id, newest))

    async def series(self, query: SeriesQuery) -> Series:
        """Buckets of the fields' means, least and greatest values."""
        statement, parameters = schema.series_query(query)
        rows = await self._read(lambda c: c.execute(statement, parameters).fetchall())
        folds: list[dict[str, list[float | None]]] = [{}, {}, {}]
        for column, field in enumerate(query.fields):
            for fold, values in enumerate(folds):
                values[field] = [row[1 + 3 * column + fold] for row in rows]
        return Series([utc(row[0]) for row in rows], *folds)

    async def fleet(self) -> list[NodeSummary]:
        """Arrivals as the marks tell, and system numbers from their table."""
        return await self._read(lambda cursor: read_fleet(cursor, self._marks.seen()))

    async def expire(self, now: datetime, keep: timedelta) -> int:
        """Slice by slice, so that what comes meanwhile waits for an hour's points at most."""
        return await asyncio.to_thread(self._expire, now, keep)

    async def check(self) -> None:
        """Return if a query gets through and, if it did not the last time, a write as well."""
        if self._journalling.failing:
            await self._writer.write(_NOTHING)
        if self._filling.failing:
            await self._on_reader(self._filler.settle)
        await self._read(lambda c: c.execute("SELECT value FROM meta").fetchone())

    async def aclose(self) -> None:
        """Finish accepted writes, then close the files. Cancelling the wait does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self.close))
        await asyncio.shield(self._closing)

    def hold_still(self, until: Callable[[], None]) -> None:
        """Call ``until`` while the database's file has all that came before and is left alone.

        Blocks; what comes meanwhile waits in the journal. Raises `StoreError`.
        """
        self._filler.settle()

        def hold() -> None:
            self._tables.checkpoint()
            until()

        self._filler.between(hold)

    def close(self) -> None:
        """As `aclose`, for who has no event loop. Blocks."""
        self._writer.close()
        self._filler.close()
        if self._filler.backlog or self._filling.failing:
            self._journal.close()
        else:
            self._journal.clear()
        self._readers.shutdown()
        self._tables.close()

    def _commit(self, reports: Sequence[Report]) -> list[Receipt]:
        """Runs on the writer's thread only."""
        draft = Draft(self._marks)
        steps = [(report, draft.take(report)) for report in reports]
        records = [encode_record(report) for report, step in steps if step.is_to_keep]
        if not records and self._journalling.failing:
            records = [TRIAL]
        if records:
            self._keep(records, draft)
        draft.adopt()
        return [step.receipt for _, step in steps]

    def _keep(self, records: Sequence[bytes], draft: Draft) -> None:
        try:
            last = self._journal.append(records)
        except OSError as err:
            raise StoreError("the points could not be stored; the server's log says why") from err
        self._journalling.worked()
        self._filler.add(_addition(last, draft))

    def _fill(self, additions: Sequence[Addition]) -> None:
        """Runs on the filler's thread only."""
        self._tables.fill(additions)
        with suppress(OSError):  # the next time will do
            self._journal.forget(additions[-1].record)

    def _expire(self, now: datetime, keep: timedelta) -> int:
        newest = self._filler.between(self._tables.newest)
        if newest is None or newest - _EVER <= keep:
            return 0
        before = min(now, newest) - keep
        expired = 0
        while gone := self._filler.between(lambda: self._tables.expire(before)):
            expired += gone
        self._filler.between(lambda: self._tables.tidy(before))
        return expired

    def _open_journal(self, directory: Path) -> None:
        try:
            self._journal = Journal(directory)
            self._replay(directory)
        except OSError as err:
            raise StartError(f"cannot read the journal {directory}: {err.strerror}") from err

    def _replay(self, directory: Path) -> None:
        """Take in again what the journal has and the tables have not."""
        draft = Draft(self._marks)
        last = count = 0
        for last, record in self._journal.replay(self._tables.filled_upto()):
            try:
                report = decode_record(record)
            except ValueError as err:
                raise JournalDamaged(directory, f"record {last}: {err}") from err
            if report is not None:
                draft.take(report)
            count += 1
            if count % _REPLAYED_AT_ONCE == 0:
                draft = self._take_in(last, draft)
        if count:
            self._take_in(last, draft)

    def _take_in(self, last: int, draft: Draft) -> Draft:
        self._filler.add(_addition(last, draft))
        draft.adopt()
        return Draft(self._marks)

    def _find_mark(self, node_id: str, epoch: str) -> Mark | None:
        # In this order, for an addition is in the tables before it no longer waits.
        for addition in reversed(self._filler.waiting()):
            for mark in addition.receipts:
                if (mark.node_id, mark.epoch) == (node_id, epoch):
                    return mark
        return self._tables.read(
            lambda c: next(read_marks(c, ledger_tables.MARK_OF_EPOCH, node_id, epoch), None)
        )

    async def _read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._on_reader(lambda: self._ask(question))

    def _ask(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with suppress(StoreError):  # then the answer is as old as the tables
            self._filler.settle()
        return self._tables.read(question)

    async def _on_reader(self, task: Callable[[], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._readers, task)


def _addition(last: int, draft: Draft) -> Addition:
    arrivals = [ReportPoints(d.node_id, d.received_at, points) for d, points in draft.points]
    return Addition(last, arrivals, list(draft.receipts()), draft.losses)


if TYPE_CHECKING:
    _: type[Store] = DuckDBStore
