"""The embedded store: one DuckDB file, one writer, readers beside it.

A write is durable when it is acknowledged: DuckDB appends the transaction to its log and syncs
that before a commit returns, and replays the log when it opens. Points reach the tables through
DuckDB's appender, the fastest way in that needs no other package (measured in
docs/adr/0006-embedded-store.md).
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb

from plexd.api import GROUP_SYSTEM
from plexd.clock import SystemClock
from plexd_server.errors import StartError, StoreClosed, StoreError
from plexd_server.store import schema
from plexd_server.store.faults import FaultLog
from plexd_server.store.port import NodeSummary, Receipt, Series, Store, StoredPoint
from plexd_server.store.writer import GroupWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import TypeVar

    from plexd_server.store.port import Delivery, SeriesQuery

    T = TypeVar("T")

__all__ = ["DuckDBStore"]

FILE_NAME = "points.duckdb"
_THREADS = 2
_READERS = 2
_LOCKED = re.compile(r"lock.*PID (\d+)", re.DOTALL)


class DuckDBStore:
    """A `Store` in ``data_dir``. Opens on construction, which blocks; raises `StartError`.

    ``memory`` is DuckDB's own limit (``"256MB"``); a query that needs more spills to the data
    directory. ``max_pending_points`` bounds what waits to be written.
    """

    def __init__(
        self, data_dir: Path, *, memory: str = "256MB", max_pending_points: int = 200_000
    ) -> None:
        self._path = data_dir / FILE_NAME
        self._connection = _open(self._path, memory)
        self._writing = self._connection.cursor()
        self._appenders: dict[str, duckdb.Appender] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        clock = SystemClock()
        self._read_faults = FaultLog("reading", clock)
        self._write_faults = FaultLog("writing", clock)
        self._writer = GroupWriter(
            self._commit, max_points=max_pending_points, faults=self._write_faults
        )
        self._closing: asyncio.Task[None] | None = None

    async def write(self, delivery: Delivery) -> Receipt:
        """Commit the points together with whatever else is waiting, then return."""
        if delivery.points:
            await self._writer.write(delivery)
        return Receipt(accepted=len(delivery.points))

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """The newest point of each group and peer."""
        return await self._read(lambda cursor: list(_latest(cursor, node_id)))

    async def series(self, query: SeriesQuery) -> Series:
        """Buckets of the fields' means, least and greatest values."""
        statement, parameters = schema.series_query(query)
        rows = await self._read(lambda c: c.execute(statement, parameters).fetchall())
        folds: list[dict[str, list[float | None]]] = [{}, {}, {}]
        for column, field in enumerate(query.fields):
            for fold, values in enumerate(folds):
                values[field] = [row[1 + 3 * column + fold] for row in rows]
        return Series([_utc(row[0]) for row in rows], *folds)

    async def fleet(self) -> list[NodeSummary]:
        """The newest arrival and system numbers of every node."""
        rows = await self._read(lambda c: c.execute(schema.fleet_query()).fetchall())
        return [_summary(*row) for row in rows]

    async def check(self) -> None:
        """Return if a query gets through and the last commit did not fail."""
        if self._write_faults.failing:
            raise StoreError("the last points could not be stored; the server's log says why")
        await self._read(lambda c: c.execute("SELECT value FROM meta").fetchone())

    async def aclose(self) -> None:
        """Finish accepted writes, then close the file. Cancelling the wait does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self._close))
        await asyncio.shield(self._closing)

    def _close(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        self._appenders.clear()
        self._writing.close()
        self._connection.close()

    def _commit(self, deliveries: Sequence[Delivery]) -> None:
        """Runs on the writer's thread only, which is why the appenders may be kept."""
        rows = schema.rows_by_group(deliveries)
        try:
            self._writing.begin()
            for group, group_rows in rows.items():
                if group_rows:
                    self._append(group, group_rows)
            self._writing.commit()
        except duckdb.Error as err:
            self._forget()
            raise StoreError("the points could not be stored; the server's log says why") from err

    def _append(self, group: str, rows: list[tuple[Any, ...]]) -> None:
        appender = self._appenders.get(group)
        if appender is None:
            appender = self._writing.appender(schema.table_of(group))
            self._appenders[group] = appender
        appender.append_rows(rows)
        appender.flush()

    def _forget(self) -> None:
        """Leave nothing of a failed transaction behind, neither in the log nor in an appender."""
        for appender in self._appenders.values():
            appender.clear()
        self._appenders.clear()
        try:
            self._writing.rollback()
        except duckdb.Error:
            return  # there was none: it failed before it began, or the commit ended it

    async def _read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._ask, question)

    def _ask(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            with self._connection.cursor() as cursor:
                answer = question(cursor)
        except duckdb.Error as err:
            self._read_faults.failed(err)
            raise StoreError("the store cannot be read; the server's log says why") from err
        self._read_faults.worked()
        return answer


def _latest(cursor: duckdb.DuckDBPyConnection, node_id: str) -> Iterable[StoredPoint]:
    for group in schema.PAYLOADS:
        for row in cursor.execute(schema.latest_query(group), [node_id]).fetchall():
            yield _stored(group, *row)


def _stored(group: str, ts: datetime, received_at: datetime, *values: Any) -> StoredPoint:
    made = [_utc(value) if isinstance(value, datetime) else value for value in values]
    data: Any = schema.PAYLOADS[group](*made)
    return StoredPoint(
        timestamp=_utc(ts),
        received_at=_utc(received_at),
        group=group,
        peer_id=getattr(data, "peer_id", ""),
        data=data,
    )


def _summary(node_id: str, seen: datetime, ts: datetime | None, *rest: Any) -> NodeSummary:
    system = None if ts is None else _stored(GROUP_SYSTEM, ts, *rest)
    return NodeSummary(node_id, _utc(seen), system)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _open(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """A database of our schema. Raises `StartError`."""
    try:
        connection = _connect(path, memory)
        try:
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except duckdb.Error as err:
        raise _start_error(path, err) from err
    return connection


def _connect(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """A database that neither reaches beyond its own files nor can be told to."""
    connection = duckdb.connect(
        path,
        config={
            "threads": str(_THREADS),
            "memory_limit": memory,
            "temp_directory": str(path.with_suffix(".tmp")),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    if not connection.execute("SHOW TABLES").fetchall():
        connection.begin()
        for statement in schema.create_statements():
            connection.execute(statement)
        connection.commit()
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None or int(row[0]) > schema.SCHEMA_VERSION:
        raise StartError(f"{path} was written by a newer plexd-server; upgrade")


def _start_error(path: Path, err: duckdb.Error) -> StartError:
    text = str(err)
    if holder := _LOCKED.search(text):
        return StartError(
            f"{path.parent} is in use by another process (pid {holder[1]}); stop that, or choose "
            "another directory with --data-dir"
        )
    if "Cannot open file" in text:
        return StartError(
            f"cannot open {path}: {_first_line(err).rpartition(': ')[2]}; check the directory's "
            "owner and free space, or choose another with --data-dir"
        )
    if isinstance(err, duckdb.ParserException):
        return StartError(f"--store-memory is not a size such as 256MB: {_first_line(err)}")
    return StartError(
        f"{path} is damaged ({_first_line(err)}); put a backup in its place, or move it away to "
        "start with an empty store"
    )


def _first_line(err: Exception) -> str:
    return str(err).partition("\n")[0]


if TYPE_CHECKING:
    _: type[Store] = DuckDBStore
