"""The database behind the journal: one thread loads its tables, others read them.

After an error that DuckDB calls fatal, a failed fsync above all, it answers nothing until its file
is opened again; the next `Tables.load` does that. Whether a transaction whose commit failed is in
the tables is read from ``meta.journal``, which is written with it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb

from plexd_server.errors import StoreError
from plexd_server.store.duckdb import queries, schema
from plexd_server.store.duckdb.columns import microseconds
from plexd_server.store.duckdb.opening import open_database
from plexd_server.store.duckdb.rolling import Rollups

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plexd_server.fault_log import FaultLog
    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.duckdb.new_rows import Chunk

    T = TypeVar("T")

_NEW_ROWS: Final = "new_rows"
_CHECKPOINT: Final = "FORCE CHECKPOINT"  # without force it fails during a read
_PATIENCE_SECONDS: Final = 5.0
_SLICE: Final = timedelta(hours=1)
_SET_JOURNAL: Final = f"UPDATE meta SET value = ? WHERE key = '{schema.JOURNAL}'"  # noqa: S608 -- our own name
_REMOVE_POINTS: Final = [f"DELETE FROM points_{group} WHERE ts < ?" for group in schema.TABLES]  # noqa: S608 -- our own names
_SUBTRACT_UNACCOUNTED: Final = (
    "UPDATE meta SET value = (value::BIGINT - ?)::VARCHAR "  # noqa: S608 -- our own name
    f"WHERE key = '{schema.UNACCOUNTED}'"
)
_REMOVE_SUPERSEDED: Final = (
    "DELETE FROM receipts WHERE ordinal NOT IN "
    "(SELECT max(ordinal) FROM receipts GROUP BY node_id, epoch)"
)
_REMOVE_MARKS: Final = (
    "DELETE FROM receipts WHERE node_id = ? AND epoch IN (SELECT unnest(?::VARCHAR[]))"
)
_COUNT_UNACCOUNTED: Final = (
    f"UPDATE meta SET value = (({schema.COUNT_POINTS}) - ({queries.TOTAL_RECEIVED}))::VARCHAR "  # noqa: S608 -- our own names
    f"WHERE key = '{schema.UNACCOUNTED}'"
)
_REMOVE_LOSSES: Final = "DELETE FROM losses WHERE noticed_at < ?"


class Tables:
    """The database at ``path``, created if need be. Raises `StartError`.

    ``memory`` is DuckDB's own limit; ``reading`` logs the failures of queries.
    """

    def __init__(self, path: Path, memory: str, *, reading: FaultLog) -> None:
        self._path = path
        self._memory = memory
        self._reading = reading
        self._open()

    def _open(self) -> None:
        self.connection = open_database(
            self._path, self._memory, patience_seconds=_PATIENCE_SECONDS
        )
        self._writing = self.connection.cursor()
        self._rollups = Rollups(self._writing)
        self._is_open = True

    def loaded_upto(self) -> int:
        """Return the number of the journal's last record of which everything is in the tables."""
        return queries.read_meta(self._writing, schema.JOURNAL) or 0

    def load(self, chunk: Chunk, *, is_first: bool = False) -> None:
        """Add the whole chunk in one transaction, or nothing. Raises what DuckDB raises.

        Called by one thread at a time, and again with the same chunk after it raised. ``is_first``:
        marks in the chunk may count points that were in a lost database; they count as removed.
        """
        try:
            if not self._is_open:
                self._open()
            if (known := self.loaded_upto()) < chunk.upto:
                _check_next(chunk, known, is_first=is_first)
                self._write(chunk, is_first=is_first)
        except Exception as err:
            with suppress(duckdb.Error):  # none is open: it had not begun, or the commit ended it
                self._writing.rollback()
            if isinstance(err, duckdb.FatalException):
                self.close()
            raise

    def _write(self, chunk: Chunk, *, is_first: bool) -> None:
        rows = chunk.rows()
        self._writing.begin()
        for node_id, epochs in chunk.removed.items():
            self._writing.execute(_REMOVE_MARKS, [node_id, epochs])
        for table, columns in rows.items():
            self._insert(table, columns)
        self._rollups.add(rows)
        self._writing.execute(_SET_JOURNAL, [str(chunk.upto)])
        if is_first:
            self._writing.execute(_COUNT_UNACCOUNTED)
        self._writing.commit()

    def _insert(self, table: str, columns: dict[str, Column]) -> None:
        self._writing.register(_NEW_ROWS, columns)
        try:
            self._writing.execute(f"INSERT INTO {table} SELECT * FROM {_NEW_ROWS}")  # noqa: S608 -- our own names
        finally:
            self._writing.unregister(_NEW_ROWS)

    def newest(self) -> datetime | None:
        """Return when the newest point was measured; None if there are no points."""
        return self._maintain(lambda cursor: queries.read_time(cursor, queries.NEWEST_POINT))

    def roll(self, before: datetime | None = None) -> bool:
        """Make some rollups, in one transaction; return whether there may be more to make.

        Made are those of points measured before ``before``, by default of those that are old
        enough, and then those that became stale.
        """
        until = None if before is None else microseconds(before)
        return self._maintain(lambda _: self._rollups.advance(until))

    def expire(self, before: datetime) -> int:
        """Remove the points of the oldest hour measured before ``before``; return their number.

        Zero means that all points left were measured at ``before`` or later.
        """
        return self._maintain(lambda cursor: self._expire(cursor, before))

    def expire_rollups(self, before: datetime) -> None:
        """Remove the rollups of what was measured before ``before``."""
        self._maintain(lambda _: self._rollups.expire(microseconds(before)))

    def _expire(self, cursor: duckdb.DuckDBPyConnection, before: datetime) -> int:
        oldest = queries.read_time(cursor, queries.OLDEST_POINT)
        if oldest is None or oldest >= before:
            return 0
        until = min(before, oldest + _SLICE)
        cursor.begin()
        gone = [queries.read_one(cursor, sql, until.replace(tzinfo=None)) for sql in _REMOVE_POINTS]
        cursor.execute(_SUBTRACT_UNACCOUNTED, [sum(gone)])
        self._rollups.forget(microseconds(until))
        cursor.commit()
        return sum(gone)

    def compact(self, before: datetime) -> None:
        """Remove superseded receipts and losses older than ``before``; free their space."""
        self._maintain(lambda cursor: _compact(cursor, before))

    def checkpoint(self) -> None:
        """Move what the database's own log holds into its file."""
        self._maintain(lambda cursor: cursor.execute(_CHECKPOINT))

    def _maintain(self, task: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run ``task`` on the thread that loads. Raises `StoreError`."""
        try:
            return task(self._writing)
        except duckdb.Error as err:
            with suppress(duckdb.Error):
                self._writing.rollback()
            raise StoreError(f"upkeep: {err}") from err

    def read(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return the answer to a query, on any thread. Raises `StoreError`."""
        try:
            with self.connection.cursor() as cursor:
                answer = query(cursor)
        except duckdb.Error as err:
            self._reading.failed(err)
            raise StoreError("the store cannot be read; the server's log says why") from err
        self._reading.worked()
        return answer

    def close(self) -> None:
        """Close the file. May be called again."""
        self._writing.close()
        self.connection.close()
        self._is_open = False


def _check_next(chunk: Chunk, known: int, *, is_first: bool) -> None:
    """Raise `StoreError` if something of the chunk is in the tables, or something before it not."""
    if known != chunk.after and not is_first:
        raise StoreError(f"record {known} is the last one, not {chunk.after}")


def _compact(cursor: duckdb.DuckDBPyConnection, before: datetime) -> None:
    cursor.execute(_REMOVE_SUPERSEDED)
    cursor.execute(_REMOVE_LOSSES, [before.replace(tzinfo=None)])
    cursor.execute(_CHECKPOINT)
