"""The front of the embedded store: a journal that makes reports durable, marks, and questions.

A write is acknowledged when the journal has it on the disk (`Journal`, one fsync for all reports
that arrived meanwhile). The tables follow the journal in a process of their own (`TablesLink`),
each chunk with the number of the journal's last record in it. So after a kill of either, at any
moment, exactly the missing records are loaded again. A question sees everything that was
acknowledged before it: it carries the number of the last durable record.

The marks are moved here, before a report is answered; its record has them. At a start they are
those of the tables, moved by the records that the tables have not. So nothing is decided twice.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from plexd.api import Receipt
from plexd.clock import SystemClock
from plexd_server.errors import JournalDamaged, StartError, StoreBusy, StoreClosed, StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.opened_files import OpenedFiles
from plexd_server.store.embedded import questions as ask
from plexd_server.store.embedded.files import FILE_NAME, JOURNAL_NAME, DirectoryLock
from plexd_server.store.embedded.launching import Apart, TablesProcess, TablesThread
from plexd_server.store.embedded.link import TablesLink
from plexd_server.store.embedded.mark_cache import MarkCache
from plexd_server.store.embedded.staging import StagedReports
from plexd_server.store.journal import (
    TRIAL,
    GroupWriter,
    Journal,
    Record,
    decode_record,
    encode_record,
)
from plexd_server.store.marks import make_ledger
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
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path

    from plexd_server.store.embedded.mark_cache import StoredMarks
    from plexd_server.store.marks import Mark

T = TypeVar("T")

_TABLES: Final = "tables"
_ASKING: Final = 8
_EMPTY_REPORT: Final = Report("", (), datetime(1, 1, 1, tzinfo=UTC))


class DuckDBStore:
    """A `Store` in ``data_dir``. Opens on construction, which blocks; raises `StartError`.

    ``memory`` is DuckDB's own limit (``"256MB"``); a query that needs more spills to the data
    directory. ``max_pending_points`` bounds what waits for the journal, and as well what waits in
    the journal for the tables. While one of ``files`` is not in its place, nothing is written and
    nothing acknowledged; the database's file is added to them. With ``apart`` the tables have a
    process of their own, else a thread of this one.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        memory: str = "256MB",
        max_pending_points: int = 200_000,
        files: OpenedFiles | None = None,
        apart: Apart | None = None,
    ) -> None:
        clock = SystemClock()
        self._files = files or OpenedFiles(clock)
        self._max_pending = max_pending_points
        # The names are those of docs/reference/logs.md.
        self._writing = FaultLog("writing", clock)
        self._following = FaultLog("following", clock)
        self._backlog = _Backlog()
        self._lock = DirectoryLock(data_dir)
        self._link = TablesLink(
            TablesThread if apart is None else partial(TablesProcess, apart),
            check=self._files.check,
            durable=lambda: self._journal.last,
            loaded=self._note_loaded,
        )
        try:
            self._open(data_dir, memory)
        except BaseException:
            self._lock.release()
            raise
        self._writer = GroupWriter(
            self._commit, max_points=max_pending_points, faults=self._writing
        )
        self._asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="store-asking")
        self._closing: asyncio.Task[None] | None = None

    async def write(self, report: Report) -> Written:
        if not report.points and not report.is_rejected:
            return Written(Receipt(accepted=0))
        if (waiting := self._backlog.points) >= self._max_pending:
            self._following.failed(
                StoreBusy(f"{waiting} points wait in the journal for the tables")
            )
            raise StoreBusy("too much is waiting to be stored; try again in a moment")
        return await self._writer.write(report)

    async def ledger(self, node_id: str) -> Ledger:
        known = self._marks.of_node(node_id)
        stored, losses = await self._ask(ask.ReadAccount(node_id))
        marks = {mark.epoch: mark for mark in stored}
        # Only those in memory count the duplicates since they were stored.
        marks |= {mark.epoch: mark for mark in known if mark.epoch in marks}
        return make_ledger(marks.values(), losses)

    async def latest(self, node_id: str) -> list[StoredPoint]:
        return await self._ask(ask.ReadLatest(node_id, self._marks.last_report(node_id)))

    async def series(self, query: SeriesQuery) -> Series:
        return await self._ask(ask.ReadSeries(query))

    async def fleet(self) -> list[NodeSummary]:
        return await self._on_thread(
            lambda: self._link.ask(ask.ReadFleet(self._marks.last_reports()))
        )

    async def expire(
        self, now: datetime, keep: timedelta, keep_rollups: timedelta | None = None
    ) -> int:
        """Remove hour by hour, so that reports meanwhile wait for one hour's points at most."""
        return await asyncio.to_thread(self._maintain, ask.Expire(now, keep, keep_rollups))

    async def check(self) -> None:
        """Run a query and, if the last write failed, a write."""
        await self._on_thread(self._files.check)
        if self._writing.failing:
            await self._writer.write(_EMPTY_REPORT)
        await self._ask(ask.Check())

    async def aclose(self) -> None:
        """Finish accepted writes, then close the files. Cancelling the wait does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self.close))
        await asyncio.shield(self._closing)

    def quiesce(self, during: Callable[[], None]) -> None:
        """Call ``during`` while the database's file holds everything before and does not change.

        Blocks; reports wait in the journal meanwhile. Raises `StoreError`.
        """
        self._maintain(ask.Hold())
        try:
            during()
        finally:
            with suppress(StoreError):
                self._link.ask(ask.Release())

    def close(self) -> None:
        """Close as `aclose` does, without an event loop. Blocks."""
        self._writer.close()
        self._asking.shutdown()
        try:
            self._settle()
        except (OSError, StoreError):  # the next start loads what the tables have not
            self._journal.close()
        self._link.close()
        self._lock.release()

    def _settle(self) -> None:
        """Leave everything in the database's file, if the tables have all that was acknowledged."""
        self._files.check()
        if self._link.ask(ask.Finish()) == self._journal.last:
            self._journal.clear()
        else:
            self._journal.close()

    def _commit(self, reports: Sequence[Report]) -> list[Written]:
        """Commit a group of reports; runs on the writer's thread only."""
        self._marks.settle(self._backlog.loaded)
        staged = StagedReports(self._marks)
        steps = [staged.add(report) for report in reports]
        records = [record for _, record in steps if record is not None]
        payloads = [encode_record(record) for record in records]
        if not payloads and self._writing.failing:
            payloads = [TRIAL]
        if payloads:
            self._append(payloads, sum(record.weight for record in records))
        staged.apply(self._journal.last)
        return [Written(step.receipt, step.points, step.is_notable) for step, _ in steps]

    def _append(self, payloads: Sequence[bytes], weight: int) -> None:
        self._files.check()
        try:
            last = self._journal.append(payloads)
        except OSError as err:
            raise StoreError("the points could not be stored; the server's log says why") from err
        self._writing.worked()
        self._backlog.add(last, weight)
        self._link.extend()

    def _note_loaded(self, record: int) -> None:
        """Note what the tables have; runs on the thread that hears of it."""
        self._backlog.settle(record)
        if self._backlog.points < self._max_pending:
            self._following.worked()
        with suppress(OSError):  # the next chunk deletes them as well
            self._journal.release(_TABLES, record)

    def _open(self, data_dir: Path, memory: str) -> None:
        position = self._link.open(ask.Open(str(data_dir), memory))
        try:
            self._files.add(data_dir / FILE_NAME)
            self._journal = Journal(data_dir / JOURNAL_NAME)
            self._replay(data_dir / JOURNAL_NAME, position)
        except BaseException as err:
            self._link.close()
            if isinstance(err, OSError):
                reason = f"cannot read the journal {data_dir / JOURNAL_NAME}: {err.strerror}"
                raise StartError(reason) from err
            raise

    def _replay(self, directory: Path, loaded: int) -> None:
        """Take the marks of the tables, and move them by the records that the tables have not."""
        # If the database is new, what its predecessor had is gone and the rest is not.
        begin = loaded or self._journal.begins_after()
        records = list(self._read(directory, begin))
        if begin != loaded or any(isinstance(record, Report) for _, record in records):
            begin = self._link.ask(ask.LoadOld(begin), seconds=None)
            records = []
        known = self._link.ask(ask.FindKnown(secrets.token_hex(16)), seconds=None)
        self._marks = MarkCache(known, _MarksOfTables(self._link))
        staged = StagedReports(self._marks)
        for number, record in records:
            if isinstance(record, Record):
                staged.replay(record)
                self._backlog.add(number, record.weight)
        staged.apply(self._journal.last)
        self._journal.release(_TABLES, begin)
        self._link.follow(begin)

    def _read(self, directory: Path, after: int) -> Iterator[tuple[int, Record | Report | None]]:
        for number, payload in self._journal.replay(after):
            try:
                yield number, decode_record(payload)
            except ValueError as err:
                raise JournalDamaged(directory, f"record {number}: {err}") from err

    def _maintain(self, question: ask.Question[T]) -> T:
        """Ask for upkeep, which may take its time, if the files are in their place."""
        self._files.check()
        return self._link.ask(question, seconds=None)

    async def _ask(self, question: ask.Question[T]) -> T:
        return await self._on_thread(lambda: self._link.ask(question))

    async def _on_thread(self, task: Callable[[], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._asking, task)


class _Backlog:
    """What is in the journal and not in the tables yet.

    Attributes:
        points: how many points it counts as.
        loaded: the last record in the tables.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._appends: deque[tuple[int, int]] = deque()
        self.points = 0
        self.loaded = 0

    def add(self, record: int, weight: int) -> None:
        with self._lock:
            self._appends.append((record, weight))
            self.points += weight

    def settle(self, record: int) -> None:
        with self._lock:
            self.loaded = record
            while self._appends and self._appends[0][0] <= record:
                self.points -= self._appends.popleft()[1]


class _MarksOfTables:
    """The marks that only the tables have. A report does not wait for tables that are away."""

    def __init__(self, link: TablesLink) -> None:
        self._link = link

    def find(self, node_id: str, epoch: str) -> Mark | None:
        return self._link.ask(ask.FindMark(node_id, epoch), away=0)

    def of_node(self, node_id: str) -> list[Mark]:
        return self._link.ask(ask.FindMarks(node_id), away=0)


if TYPE_CHECKING:
    _: type[Store] = DuckDBStore
    _marks: type[StoredMarks] = _MarksOfTables
