"""The embedded store: a journal that makes reports durable, and a database that answers.

A write is acknowledged when the journal has it on the disk (`Journal`, one fsync for all reports
that arrived meanwhile). The tables are loaded from it in chunks (`Loader`, `Tables`), each with the
number of the journal's last record in it. So after a kill at any moment exactly the missing records
are loaded again. A query sees everything that was acknowledged before it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from plexd.api import Receipt
from plexd.clock import SystemClock
from plexd_server.errors import JournalDamaged, StartError, StoreBusy, StoreClosed, StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.opened_files import OpenedFiles
from plexd_server.store.duckdb.changeset import Changeset, MarkCache, StagedReports
from plexd_server.store.duckdb.journal import Journal
from plexd_server.store.duckdb.loader import Loader
from plexd_server.store.duckdb.queries import (
    read_fleet,
    read_latest,
    read_ledger,
    read_mark,
    read_marks_of,
)
from plexd_server.store.duckdb.records import TRIAL, decode_record, encode_record
from plexd_server.store.duckdb.series import read_series
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.duckdb.writer import GroupWriter
from plexd_server.store.port import (
    Ledger,
    NodeSummary,
    Report,
    Series,
    SeriesQuery,
    Store,
    StoredPoint,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from plexd_server.store.duckdb.changeset import StoredMarks
    from plexd_server.store.marks import Mark

    T = TypeVar("T")

FILE_NAME = "points.duckdb"
JOURNAL_NAME = "journal"
_READERS = 2
_REPLAY_RECORDS = 1000
_FIRST_TIME = datetime(1, 1, 1, tzinfo=UTC)
_EMPTY_REPORT = Report("", (), _FIRST_TIME)


class DuckDBStore:
    """A `Store` in ``data_dir``. Opens on construction, which blocks; raises `StartError`.

    ``memory`` is DuckDB's own limit (``"256MB"``); a query that needs more spills to the data
    directory. ``max_pending_points`` bounds what waits for the journal, and as well what waits in
    the journal for the tables. While one of ``files`` is not in its place, nothing is written and
    nothing acknowledged; the database's file is added to them.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        memory: str = "256MB",
        max_pending_points: int = 200_000,
        files: OpenedFiles | None = None,
    ) -> None:
        clock = SystemClock()
        self._files = files or OpenedFiles(clock)
        self._max_pending = max_pending_points
        # The names are those of docs/reference/logs.md.
        self._writing = FaultLog("writing", clock)
        self._loading = FaultLog("filling", clock)
        self._tables = Tables(
            data_dir / FILE_NAME, memory, loading=self._loading, reading=FaultLog("reading", clock)
        )
        self._files.add(data_dir / FILE_NAME)
        self._loader = Loader(self._load)
        self._marks = MarkCache(self._tables.marks(), _MarksOfTables(self._tables, self._loader))
        try:
            self._open_journal(data_dir / JOURNAL_NAME)
        except BaseException:
            self._loader.close()
            self._tables.close()
            raise
        self._writer = GroupWriter(
            self._commit, max_points=max_pending_points, faults=self._writing
        )
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._closing: asyncio.Task[None] | None = None

    async def write(self, report: Report) -> Written:
        if not report.points and not report.is_rejected:
            return Written(Receipt(accepted=0))
        if self._loader.backlog >= self._max_pending:
            raise StoreBusy("too much is waiting to be stored; try again in a moment")
        return await self._writer.write(report)

    async def ledger(self, node_id: str) -> Ledger:
        return await self._read(lambda c: read_ledger(c, node_id, self._marks.of_node(node_id)))

    async def latest(self, node_id: str) -> list[StoredPoint]:
        last = self._marks.last_report(node_id)
        return await self._read(lambda cursor: read_latest(cursor, node_id, last))

    async def series(self, query: SeriesQuery) -> Series:
        return await self._read(lambda cursor: read_series(cursor, query))

    async def fleet(self) -> list[NodeSummary]:
        return await self._read(lambda cursor: read_fleet(cursor, self._marks.last_reports()))

    async def expire(self, now: datetime, keep: timedelta) -> int:
        """Remove hour by hour, so that reports meanwhile wait for one hour's points at most."""
        return await asyncio.to_thread(self._expire, now, keep)

    async def check(self) -> None:
        """Run a query and, if the last write failed, a write."""
        await self._on_reader(self._files.check)
        if self._writing.failing:
            await self._writer.write(_EMPTY_REPORT)
        if self._loading.failing:
            await self._on_reader(self._loader.flush)
        await self._read(lambda c: c.execute("SELECT value FROM meta").fetchone())

    async def aclose(self) -> None:
        """Finish accepted writes, then close the files. Cancelling the wait does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self.close))
        await asyncio.shield(self._closing)

    def quiesce(self, during: Callable[[], None]) -> None:
        """Call ``during`` while the database's file holds everything before and does not change.

        Blocks; reports wait in the journal meanwhile. Raises `StoreError`.
        """
        self._loader.flush()

        def checkpointed() -> None:
            self._tables.checkpoint()
            during()

        self._maintain(checkpointed)

    def close(self) -> None:
        """Close as `aclose` does, without an event loop. Blocks."""
        self._writer.close()
        self._loader.close()
        try:
            self._settle()
        except (OSError, StoreError):  # the next start loads what the tables have not
            self._journal.close()
        self._readers.shutdown()
        self._tables.close()

    def _settle(self) -> None:
        """Leave everything in the database's file, if the tables have all that was acknowledged."""
        self._files.check()
        self._tables.checkpoint()
        if self._loader.backlog or self._loading.failing:
            self._journal.close()
        else:
            self._journal.clear()

    def _commit(self, reports: Sequence[Report]) -> list[Written]:
        """Commit a group of reports; runs on the writer's thread only."""
        staged = StagedReports(self._marks)
        steps = [(report, staged.add(report)) for report in reports]
        records = [encode_record(report) for report, step in steps if step.must_store]
        if not records and self._writing.failing:
            records = [TRIAL]
        if records:
            self._append(records, staged)
        staged.apply()
        return [Written(step.receipt, step.points, step.is_notable) for _, step in steps]

    def _append(self, records: Sequence[bytes], staged: StagedReports) -> None:
        self._files.check()
        try:
            last = self._journal.append(records)
        except OSError as err:
            raise StoreError("the points could not be stored; the server's log says why") from err
        self._writing.worked()
        self._loader.add(staged.changeset(last))

    def _load(self, chunk: Sequence[Changeset]) -> None:
        """Load a chunk; runs on the loader's thread only."""
        self._files.check()
        self._tables.load(chunk)
        with suppress(OSError):  # the next chunk deletes them as well
            self._journal.delete_upto(chunk[-1].record)

    def _expire(self, now: datetime, keep: timedelta) -> int:
        with suppress(StoreError):  # then what waits is left for the next time
            self._loader.flush()
        newest = self._newest()
        if newest is None or newest - _FIRST_TIME <= keep:
            return 0
        before = min(now, newest) - keep
        expired = 0
        while points := self._maintain(lambda: self._tables.expire(before)):
            expired += points
        self._maintain(lambda: self._tables.compact(before))
        return expired

    def _newest(self) -> datetime | None:
        """Return the newest stamp of what was acknowledged, whether it is in the tables or not."""
        waiting = self._loader.pending()  # first: what leaves it meanwhile is in the tables
        stamps = [p.timestamp for each in waiting for of in each.points for p in of.points]
        stored = self._maintain(self._tables.newest)
        return max(stamps if stored is None else [*stamps, stored], default=None)

    def _maintain(self, task: Callable[[], T]) -> T:
        """Run ``task`` on the loader's thread, if the files are in their place."""

        def checked() -> T:
            self._files.check()
            return task()

        return self._loader.run(checked)

    def _open_journal(self, directory: Path) -> None:
        try:
            self._journal = Journal(directory)
            self._replay(directory)
        except OSError as err:
            raise StartError(f"cannot read the journal {directory}: {err.strerror}") from err

    def _replay(self, directory: Path) -> None:
        """Load what the journal has and the tables have not."""
        staged = StagedReports(self._marks)
        last = count = 0
        # If the database is new, what its predecessor had is gone and the rest is not.
        upto = self._tables.loaded_upto() or self._journal.begins_after()
        for last, record in self._journal.replay(upto):
            try:
                report = decode_record(record)
            except ValueError as err:
                raise JournalDamaged(directory, f"record {last}: {err}") from err
            if report is not None:
                staged.add(report)
            count += 1
            if count % _REPLAY_RECORDS == 0:
                staged = self._load_replayed(last, staged)
        if count:
            self._load_replayed(last, staged)

    def _load_replayed(self, last: int, staged: StagedReports) -> StagedReports:
        self._loader.add(staged.changeset(last))
        staged.apply()
        return StagedReports(self._marks)

    async def _read(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._on_reader(lambda: self._flush_and_read(query))

    def _flush_and_read(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with suppress(StoreError):  # then the answer is as old as the tables
            self._loader.flush()
        return self._tables.read(query)

    async def _on_reader(self, task: Callable[[], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._readers, task)


class _MarksOfTables:
    """The marks in the tables, and those on their way there."""

    def __init__(self, tables: Tables, loader: Loader) -> None:
        self._tables = tables
        self._loader = loader

    def find(self, node_id: str, epoch: str) -> Mark | None:
        # The queue first: a changeset is in the tables before it leaves the queue.
        for changeset in reversed(self._loader.pending()):
            for mark in changeset.marks:
                if (mark.node_id, mark.epoch) == (node_id, epoch):
                    return mark
            if (node_id, epoch) in changeset.removed:
                return None
        return self._tables.read(lambda cursor: read_mark(cursor, node_id, epoch))

    def of_node(self, node_id: str) -> list[Mark]:
        pending = self._loader.pending()
        found = {m.epoch: m for m in self._tables.read(lambda c: read_marks_of(c, node_id))}
        for changeset in pending:
            for node, epoch in changeset.removed:
                if node == node_id:
                    found.pop(epoch, None)
            found |= {mark.epoch: mark for mark in changeset.marks if mark.node_id == node_id}
        return list(found.values())


if TYPE_CHECKING:
    _: type[Store] = DuckDBStore
    _marks: type[StoredMarks] = _MarksOfTables
