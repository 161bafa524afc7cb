"""The database behind the journal: one thread fills its tables, others read them.

After an error that DuckDB calls fatal, a failed fsync above all, it answers nothing any more until
its file is opened anew; the next filling does that. What became of a transaction whose commit
failed is read from ``meta.journal``, which is written with it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import duckdb
from msgspec.structs import astuple

from plexd_server.errors import StoreError
from plexd_server.store.duckdb import ledger_tables, schema
from plexd_server.store.duckdb.columns import columns_by_group, columns_of
from plexd_server.store.duckdb.opening import open_database
from plexd_server.store.duckdb.rows import read_marks, read_meta, read_moment, read_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import TypeVar

    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.duckdb.fault_log import FaultLog
    from plexd_server.store.duckdb.loader import Addition
    from plexd_server.store.marks import Mark

    T = TypeVar("T")

__all__ = ["Tables"]

_ADDED: Final = "added"
_CHECKPOINT: Final = "FORCE CHECKPOINT"  # without force it fails while somebody reads
_SLICE: Final = timedelta(hours=1)
_SET_JOURNAL: Final = f"UPDATE meta SET value = ? WHERE key = '{schema.JOURNAL}'"  # noqa: S608 -- our own name


class Tables:
    """The database at ``path``, made or upgraded if need be. Raises `StartError`.

    ``memory`` is DuckDB's own limit; ``filling`` and ``reading`` are told how it goes.
    """

    def __init__(self, path: Path, memory: str, *, filling: FaultLog, reading: FaultLog) -> None:
        self._path = path
        self._memory = memory
        self._filling = filling
        self._reading = reading
        self._open()

    def _open(self) -> None:
        self.connection = open_database(self._path, self._memory)
        self._writing = self.connection.cursor()
        self._is_open = True

    def filled_upto(self) -> int:
        """The number of the journal's last record of which all is in the tables."""
        return read_meta(self._writing, schema.JOURNAL) or 0

    def marks(self) -> Iterator[Mark]:
        """The marks that hold, in order of ``ordinal``."""
        return read_marks(self._writing, ledger_tables.ALL_THAT_HOLD)

    def fill(self, additions: Sequence[Addition]) -> None:
        """Add all of it in one transaction, or nothing. Raises what DuckDB does.

        Called by one thread at a time, with the same additions again after it raised.
        """
        try:
            if not self._is_open:
                self._open()
            known = self.filled_upto()
            if added := [addition for addition in additions if addition.record > known]:
                self._write(added)
        except Exception as err:
            self._filling.failed(err)
            with suppress(duckdb.Error):  # there is none: it had not begun, or the commit ended it
                self._writing.rollback()
            if isinstance(err, duckdb.FatalException):
                self.close()
            raise
        self._filling.worked()

    def _write(self, additions: Sequence[Addition]) -> None:
        arrivals = [arrival for addition in additions for arrival in addition.arrivals]
        # Of the receipts of an epoch only the last one holds.
        marks = {(m.node_id, m.epoch): m for addition in additions for m in addition.receipts}
        losses = [
            ledger_tables.loss_row(*loss) for addition in additions for loss in addition.losses
        ]
        self._writing.begin()
        for group, columns in columns_by_group(arrivals).items():
            self._insert(schema.table_of(group), columns)
        kept = columns_of(ledger_tables.RECEIPT_TYPES, map(astuple, marks.values()))
        self._insert(ledger_tables.RECEIPTS, kept)
        if losses:
            self._insert(ledger_tables.LOSSES, columns_of(ledger_tables.LOSS_TYPES, losses))
        self._writing.execute(_SET_JOURNAL, [str(additions[-1].record)])
        self._writing.commit()

    def _insert(self, table: str, columns: dict[str, Column]) -> None:
        self._writing.register(_ADDED, columns)
        try:
            self._writing.execute(f"INSERT INTO {table} SELECT * FROM {_ADDED}")  # noqa: S608 -- our own names
        finally:
            self._writing.unregister(_ADDED)

    def newest(self) -> datetime | None:
        """When the newest of all points was measured; None if there are none."""
        return self._change(lambda cursor: read_moment(cursor, schema.NEWEST_POINT))

    def expire(self, before: datetime) -> int:
        """Remove the oldest points, an hour's at most, if they are older; how many.

        Zero says that all that is left was measured at ``before`` or later.
        """
        return self._change(lambda cursor: _expire(cursor, before))

    def tidy(self, before: datetime) -> None:
        """Remove receipts that were superseded and losses of before; give room back to the disk."""
        self._change(lambda cursor: _tidy(cursor, before))

    def checkpoint(self) -> None:
        """Put what the database's own log holds into its file."""
        self._change(lambda cursor: cursor.execute(_CHECKPOINT))

    def _change(self, change: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Upkeep, on the thread that fills. Raises `StoreError`."""
        try:
            return change(self._writing)
        except duckdb.Error as err:
            with suppress(duckdb.Error):
                self._writing.rollback()
            raise StoreError(f"upkeep: {err}") from err

    def read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """The answer to a question, on any thread. Raises `StoreError`."""
        try:
            with self.connection.cursor() as cursor:
                answer = question(cursor)
        except duckdb.Error as err:
            self._reading.failed(err)
            raise StoreError("the store cannot be read; the server's log says why") from err
        self._reading.worked()
        return answer

    def close(self) -> None:
        """Let go of the file. May be called again."""
        self._writing.close()
        self.connection.close()
        self._is_open = False


def _expire(cursor: duckdb.DuckDBPyConnection, before: datetime) -> int:
    oldest = read_moment(cursor, schema.OLDEST_POINT)
    if oldest is None or oldest >= before:
        return 0
    until = min(before, oldest + _SLICE).replace(tzinfo=None)
    cursor.begin()
    points = sum(int(read_one(cursor, statement, until)) for statement in schema.REMOVE_POINTS)
    cursor.execute(ledger_tables.TAKE_OFF_UNACCOUNTED, [points])
    cursor.commit()
    return points


def _tidy(cursor: duckdb.DuckDBPyConnection, before: datetime) -> None:
    cursor.execute(ledger_tables.REMOVE_SUPERSEDED)
    cursor.execute(ledger_tables.REMOVE_LOSSES, [before.replace(tzinfo=None)])
    cursor.execute(_CHECKPOINT)
