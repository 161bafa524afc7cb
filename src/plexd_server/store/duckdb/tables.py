"""The database behind the journal: one thread loads its tables, others read them.

After an error that DuckDB calls fatal, a failed fsync above all, it answers nothing until its file
is opened again; the next `Tables.load` does that. Whether a transaction whose commit failed is in
the tables is read from ``meta.journal``, which is written with it.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb
from msgspec.structs import astuple

from plexd_server.errors import StoreError
from plexd_server.store.duckdb import queries, schema
from plexd_server.store.duckdb.columns import columns_by_group, columns_of
from plexd_server.store.duckdb.opening import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from plexd_server.fault_log import FaultLog
    from plexd_server.store.duckdb.changeset import Changeset
    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.marks import Mark

    T = TypeVar("T")

_NEW_ROWS: Final = "new_rows"
_CHECKPOINT: Final = "FORCE CHECKPOINT"  # without force it fails during a read
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
_REMOVE_LOSSES: Final = "DELETE FROM losses WHERE noticed_at < ?"


class Tables:
    """The database at ``path``, created if need be. Raises `StartError`.

    ``memory`` is DuckDB's own limit; ``loading`` and ``reading`` log the failures of either.
    """

    def __init__(self, path: Path, memory: str, *, loading: FaultLog, reading: FaultLog) -> None:
        self._path = path
        self._memory = memory
        self._loading = loading
        self._reading = reading
        self._open()

    def _open(self) -> None:
        self.connection = open_database(self._path, self._memory)
        self._writing = self.connection.cursor()
        self._is_open = True

    def loaded_upto(self) -> int:
        """Return the number of the journal's last record of which everything is in the tables."""
        return queries.read_meta(self._writing, schema.JOURNAL) or 0

    def marks(self) -> Iterator[Mark]:
        """Return the valid marks, in order of ``ordinal``."""
        return queries.read_marks(self._writing)

    def load(self, changesets: Sequence[Changeset]) -> None:
        """Add all of them in one transaction, or nothing. Raises what DuckDB raises.

        Called by one thread at a time, and again with the same changesets after it raised.
        """
        try:
            if not self._is_open:
                self._open()
            known = self.loaded_upto()
            if missing := [changeset for changeset in changesets if changeset.record > known]:
                self._write(missing)
        except Exception as err:
            self._loading.failed(err)
            with suppress(duckdb.Error):  # none is open: it had not begun, or the commit ended it
                self._writing.rollback()
            if isinstance(err, duckdb.FatalException):
                self.close()
            raise
        self._loading.worked()

    def _write(self, changesets: Sequence[Changeset]) -> None:
        reports = [report for changeset in changesets for report in changeset.points]
        marks, removed = _last_marks(changesets)
        losses = [
            (node_id, *astuple(loss))
            for changeset in changesets
            for node_id, loss in changeset.losses
        ]
        self._writing.begin()
        for group, columns in columns_by_group(reports).items():
            self._insert(schema.table_of(group), columns)
        for node_id, epochs in removed.items():
            self._writing.execute(_REMOVE_MARKS, [node_id, epochs])
        if marks:
            receipts = columns_of(schema.RECEIPT_TYPES, map(astuple, marks))
            self._insert(schema.RECEIPTS, receipts)
        if losses:
            self._insert(schema.LOSSES, columns_of(schema.LOSS_TYPES, losses))
        self._writing.execute(_SET_JOURNAL, [str(changesets[-1].record)])
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

    def expire(self, before: datetime) -> int:
        """Remove the points of the oldest hour measured before ``before``; return their number.

        Zero means that all points left were measured at ``before`` or later.
        """
        return self._maintain(lambda cursor: _expire(cursor, before))

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


def _last_marks(
    changesets: Sequence[Changeset],
) -> tuple[list[Mark], dict[str, list[str]]]:
    """Return the marks after all changesets, and the epochs of each node that lost theirs.

    Of an epoch only the last mark is valid. One that lost its mark may have begun again since.
    """
    marks: dict[tuple[str, str], Mark] = {}
    removed: dict[str, list[str]] = defaultdict(list)
    for changeset in changesets:
        for node_id, epoch in changeset.removed:
            marks.pop((node_id, epoch), None)
            removed[node_id].append(epoch)
        marks |= {(mark.node_id, mark.epoch): mark for mark in changeset.marks}
    return list(marks.values()), removed


def _expire(cursor: duckdb.DuckDBPyConnection, before: datetime) -> int:
    oldest = queries.read_time(cursor, queries.OLDEST_POINT)
    if oldest is None or oldest >= before:
        return 0
    until = min(before, oldest + _SLICE).replace(tzinfo=None)
    cursor.begin()
    points = sum(int(queries.read_one(cursor, statement, until)) for statement in _REMOVE_POINTS)
    cursor.execute(_SUBTRACT_UNACCOUNTED, [points])
    cursor.commit()
    return points


def _compact(cursor: duckdb.DuckDBPyConnection, before: datetime) -> None:
    cursor.execute(_REMOVE_SUPERSEDED)
    cursor.execute(_REMOVE_LOSSES, [before.replace(tzinfo=None)])
    cursor.execute(_CHECKPOINT)
