"""The embedded store: one DuckDB file, one writer, readers beside it.

A write is durable when it is acknowledged: DuckDB appends the transaction to its log and syncs
that before a commit returns, and replays the log when it opens. Points reach the tables through
DuckDB's appender, the fastest way in that needs no other package (measured in
docs/adr/0006-embedded-store.md).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb

from plexd.clock import SystemClock
from plexd_server.errors import StoreClosed, StoreError
from plexd_server.store import receipts, schema
from plexd_server.store.drafts import Draft, Marks
from plexd_server.store.faults import FaultLog
from plexd_server.store.opening import open_database
from plexd_server.store.port import Delivery, Receipt, Series, Store
from plexd_server.store.rows import (
    read_latest,
    read_ledger,
    read_marks,
    summary_of,
    table_rows,
    utc,
)
from plexd_server.store.writer import GroupWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeVar

    from plexd_server.store.marks import Mark
    from plexd_server.store.port import Ledger, NodeSummary, SeriesQuery, StoredPoint

    T = TypeVar("T")

__all__ = ["DuckDBStore"]

FILE_NAME = "points.duckdb"
_READERS = 2
_NOTHING = Delivery("", (), datetime.min.replace(tzinfo=UTC))


class DuckDBStore:
    """A `Store` in ``data_dir``. Opens on construction, which blocks; raises `StartError`.

    ``memory`` is DuckDB's own limit (``"256MB"``); a query that needs more spills to the data
    directory. ``max_pending_points`` bounds what waits to be written.
    """

    def __init__(
        self, data_dir: Path, *, memory: str = "256MB", max_pending_points: int = 200_000
    ) -> None:
        self._path = data_dir / FILE_NAME
        self._memory = memory
        self._appenders: dict[str, duckdb.Appender] = {}
        self._open()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        clock = SystemClock()
        self._read_faults = FaultLog("reading", clock)
        self._write_faults = FaultLog("writing", clock)
        self._writer = GroupWriter(
            self._commit, max_points=max_pending_points, faults=self._write_faults
        )
        self._closing: asyncio.Task[None] | None = None

    def _open(self) -> None:
        self._connection = open_database(self._path, self._memory)
        self._writing = self._connection.cursor()
        self._marks = Marks(read_marks(self._writing, receipts.ALL_THAT_HOLD), self._find_mark)
        self._is_open = True

    async def write(self, delivery: Delivery) -> Receipt:
        """Commit the points together with whatever else is waiting, then return."""
        if not delivery.points and not delivery.rejected:
            return Receipt(accepted=0)
        return await self._writer.write(delivery)

    async def ledger(self, node_id: str) -> Ledger:
        """The marks of all epochs added up, and the losses that were noted."""
        return await self._read(lambda c: read_ledger(c, node_id, self._marks.of_node(node_id)))

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """The newest point of each group and peer."""
        return await self._read(lambda cursor: list(read_latest(cursor, node_id)))

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
        """The newest arrival and system numbers of every node."""
        rows = await self._read(lambda c: c.execute(schema.fleet_query()).fetchall())
        return [summary_of(*row) for row in rows]

    async def check(self) -> None:
        """Return if a query gets through, and a commit, too, if the last one failed."""
        if self._write_faults.failing:
            await self._writer.write(_NOTHING)  # opens the file again if need be
            await self._on_reader(self._try_commit)
        await self._read(lambda c: c.execute("SELECT value FROM meta").fetchone())

    async def aclose(self) -> None:
        """Finish accepted writes, then close the file. Cancelling the wait does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self._close))
        await asyncio.shield(self._closing)

    def _close(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        self._let_go()

    def _let_go(self) -> None:
        self._appenders.clear()
        self._writing.close()
        self._connection.close()
        self._is_open = False

    def _commit(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Runs on the writer's thread only, which is why the appenders may be kept."""
        try:
            if not self._is_open:
                self._open()
            draft = Draft(self._marks)
            answers = [draft.take(delivery).receipt for delivery in deliveries]
            if rows := table_rows(draft):
                self._write(rows)
        except Exception as err:
            self._forget()
            # It answers nothing any more, not even reads, until its file is opened anew; what
            # became of the transaction is seen then.
            if isinstance(err, duckdb.FatalException):
                self._let_go()
            raise StoreError("the points could not be stored; the server's log says why") from err
        draft.adopt()
        return answers

    def _write(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        self._writing.begin()
        for table, added in rows.items():
            self._append(table, added)
        self._writing.commit()
        self._write_faults.worked()

    def _try_commit(self) -> None:
        """Find out whether commits work again, without waiting for the next report."""
        try:
            with self._connection.cursor() as cursor:
                for statement in schema.TRIAL_WRITES:
                    cursor.execute(statement)
        except duckdb.Error as err:
            self._write_faults.failed(err)
            raise StoreError(
                "the last points could not be stored; the server's log says why"
            ) from err
        self._write_faults.worked()

    def _append(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        appender = self._appenders.get(table)
        if appender is None:
            appender = self._writing.appender(table)
            self._appenders[table] = appender
        appender.append_rows(rows)
        appender.flush()

    def _forget(self) -> None:
        """Leave nothing of a failed transaction behind, neither in the log nor in an appender."""
        appenders = list(self._appenders.values())
        self._appenders.clear()
        with suppress(duckdb.Error):  # of a database that is no longer valid
            for appender in appenders:
                appender.clear()
        with suppress(duckdb.Error):  # there is none: it had not begun, or the commit ended it
            self._writing.rollback()

    def _find_mark(self, node_id: str, epoch: str) -> Mark | None:
        return next(read_marks(self._writing, receipts.MARK_OF_EPOCH, node_id, epoch), None)

    async def _read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._on_reader(lambda: self._ask(question))

    async def _on_reader(self, task: Callable[[], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._readers, task)

    def _ask(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            with self._connection.cursor() as cursor:
                answer = question(cursor)
        except duckdb.Error as err:
            self._read_faults.failed(err)
            raise StoreError("the store cannot be read; the server's log says why") from err
        self._read_faults.worked()
        return answer


if TYPE_CHECKING:
    _: type[Store] = DuckDBStore
