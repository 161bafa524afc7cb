"""The statements on the spool's database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.sqlite.meta import Meta
from plexd.spool.sqlite.rows import MOST_POINTS, Row
from plexd.spool.sqlite.schema import check_schema, connect, connect_as_found, translated

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.spool.sqlite.budget import Budget

_META = msgspec.structs.fields(Meta)
_NAMES = ", ".join(field.name for field in _META)
_PLACEHOLDERS = ", ".join("?" for _ in _META)
# A damaged value may be of any type, and NULL, text or 2^63 must not get into a sum.
_SANE = f"typeof(points) = 'integer' AND points BETWEEN 1 AND {MOST_POINTS}"
_COLUMNS = {
    "pending": "id, '', 0, stamped, points, body",
    "batches": "id, epoch, seq, stamped, points, body",
}


class SpoolTables:
    """One connection, with the statements the spool needs."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._do = connection.execute

    @classmethod
    def open(cls, path: Path | None, budget: Budget) -> SpoolTables:
        """Return the database at ``path``, or one in memory; made if it is not there."""
        with translated():
            return cls(connect(path, budget))

    @classmethod
    def open_as_found(cls, path: Path, vfs: str | None = None) -> SpoolTables:
        """Return the database at ``path``, of which nothing is expected."""
        with translated():
            return cls(connect_as_found(path, vfs))

    def is_whole(self) -> bool:
        """Return whether the tables are found where they belong."""
        try:
            with translated():
                check_schema(self._connection)
        except (DamagedError, DiskError):
            return False
        return True

    def _value(self, sql: str, bindings: tuple[object, ...] = ()) -> Any:
        row = self._do(sql, bindings).fetchone()
        return None if row is None else row[0]

    def begin(self) -> None:
        """Begin a transaction."""
        self._do("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit the transaction."""
        self._do("COMMIT")

    def roll_back(self) -> None:
        """Undo what was done since `begin`, unless SQLite already has."""
        with suppress(apsw.Error):  # the error before this says why
            if self._connection.in_transaction:
                self._do("ROLLBACK")

    def checkpoint(self) -> None:
        """Carry the -wal into the database and empty it."""
        self._do("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def read_meta(self) -> Meta | None:
        """Return the row of ``meta``, None if there is none that is as it was written."""
        found = self._do(f"SELECT digest, {_NAMES} FROM meta WHERE one = 1").fetchone()  # noqa: S608
        if found is None:
            return None
        digest, *values = found
        try:
            meta = msgspec.convert(dict(zip(_NAMES.split(", "), values, strict=True)), Meta)
        except msgspec.ValidationError:
            return None
        return meta if meta.digest() == digest else None

    def write_meta(self, meta: Meta) -> None:
        """Replace the row of ``meta``."""
        values = (1, *msgspec.structs.astuple(meta), meta.digest())
        self._do(f"INSERT OR REPLACE INTO meta VALUES(?, {_PLACEHOLDERS}, ?)", values)

    def put(self, row: Row) -> None:
        """Add a batch, or a collection that is not sealed."""
        rest = (row.stamped, row.points, row.digest(), row.body)
        if row.seq:
            values = (row.id, row.epoch, row.seq, *rest)
            self._do("INSERT INTO batches VALUES(?, ?, ?, ?, ?, ?, ?)", values)
        else:
            self._do("INSERT INTO pending VALUES(?, ?, ?, ?, ?)", (row.id, *rest))

    def drop(self, table: str, place: int) -> None:
        """Delete the row with this id."""
        self._do(f"DELETE FROM {table} WHERE id = ?", (place,))  # noqa: S608  # one of two names
        if self._connection.changes() != 1:
            raise DamagedError("a row that was read cannot be found")

    def drop_through(self, place: int) -> None:
        """Delete all rows up to this id."""
        for table in _COLUMNS:
            self._do(f"DELETE FROM {table} WHERE id <= ?", (place,))  # noqa: S608  # see above

    def last_place(self) -> int:
        """Return the highest id there is, 0 without rows."""
        found = [self._value(f"SELECT max(id) FROM {table}") for table in _COLUMNS]  # noqa: S608
        return max((place for place in found if place is not None), default=0)

    def put_once(self, row: Row) -> bool:
        """Add a row unless there is one in its place already; return whether it was added."""
        try:
            self.put(row)
        except apsw.ConstraintError:
            return False
        return True

    def ids_as_found(self, table: str) -> list[int]:
        """Return all ids that can be read, from either end of a table with a hole in it."""
        found: dict[int, None] = {}
        for order in ("ASC", "DESC"):
            try:
                for (place,) in self._do(f"SELECT id FROM {table} ORDER BY id {order}"):  # noqa: S608
                    found[place] = None
            except apsw.Error:
                continue
            break
        return sorted(found)

    def first_ids(self, table: str, most: int) -> list[int]:
        """Return the ids of the oldest rows."""
        sql = f"SELECT id FROM {table} ORDER BY id LIMIT ?"  # noqa: S608  # see above
        return [found[0] for found in self._do(sql, (most,))]

    def outline(self, table: str, after: int = -(2**63)) -> tuple[int, int, int, int] | None:
        """Return id, points, bytes of the body and stamp of the oldest row after ``after``."""
        sql = f"""SELECT id, points, length(body), stamped FROM {table}
                  WHERE id > ? ORDER BY id LIMIT 1"""  # noqa: S608  # see above
        found = self._do(sql, (after,)).fetchone()
        if found is None:
            return None
        place, *rest = found
        points, size, stamped = (value if isinstance(value, int) else 0 for value in rest)
        return place, points if 0 < points <= MOST_POINTS else 0, size, stamped

    def read(self, table: str, place: int) -> Row | None:
        """Return the row with this id; None if it is not as it was written."""
        sql = f"SELECT {_COLUMNS[table]}, digest FROM {table} WHERE id = ?"  # noqa: S608  # see above
        found = self._do(sql, (place,)).fetchone()
        return None if found is None else Row.checked(found[:-1], found[-1])

    def name_of(self, place: int) -> tuple[object, object] | None:
        """Return epoch and number of the batch with this id, not checked against its digest."""
        found = self._do("SELECT epoch, seq FROM batches WHERE id = ?", (place,)).fetchone()
        return None if found is None else (found[0], found[1])

    def sums(self, table: str) -> tuple[int, int, int]:
        """Return rows, points in them, and bytes of their bodies."""
        sql = f"""SELECT count(*), total(CASE WHEN {_SANE} THEN points END), total(length(body))
                  FROM {table}"""  # noqa: S608  # see above
        rows, points, size = self._do(sql).fetchone() or (0, 0, 0)
        return rows, int(points), int(size)

    def drop_epoch(self, epoch: str) -> None:
        """Delete all batches that were sealed under ``epoch``."""
        self._do("DELETE FROM batches WHERE epoch = ?", (epoch,))

    def free_pages(self) -> tuple[int, int]:
        """Return pages that are free, and all pages."""
        return self._value("PRAGMA freelist_count"), self._value("PRAGMA page_count")

    def shrink(self, pages: int) -> None:
        """Give up to ``pages`` free pages back to the disk."""
        self._do(f"PRAGMA incremental_vacuum({pages})").fetchall()

    def add_dead_letter(self, values: tuple[object, ...], most_rows: int, most_bytes: int) -> None:
        """Keep a refused piece, and delete the oldest beyond these limits."""
        self._do(
            """INSERT INTO dead_letters(epoch, seq, start, points, total, reason, digest, body)
               VALUES(?, ?, ?, ?, ?, ?, ?, ?)""",
            values,
        )
        self._do(
            """DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                 SELECT id, row_number() OVER newest AS place, sum(length(body)) OVER newest AS size
                 FROM dead_letters WINDOW newest AS (ORDER BY id DESC))
               WHERE place > ? OR size > ?)""",
            (most_rows, most_bytes),
        )

    def dead_letters(self) -> list[tuple[Any, ...]]:
        """Return the refused pieces that are as they were written, oldest first."""
        found = self._do(
            """SELECT epoch, seq, start, points, total, reason, digest, body
               FROM dead_letters ORDER BY id"""
        )
        return [values for values in found if _is_letter(*values)]

    def count_dead_letters(self) -> int:
        """Return how many refused pieces are kept."""
        found = self._value("SELECT count(*) FROM dead_letters")
        return found if isinstance(found, int) else 0

    def abandon(self) -> None:
        """Close the connection and leave the files as they are.

        Closing as usual carries the -wal over and removes whatever has its name by now.
        """
        with suppress(apsw.Error):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.close()

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with suppress(apsw.Error):
            self._connection.close(True)  # noqa: FBT003  # apsw takes it by position only


def _is_letter(  # the columns of the table, of any type if they are damaged
    epoch: object, seq: object, start: object, points: object, total: object, *rest: object
) -> bool:
    reason, digest, body = rest
    row = Row.checked((start, epoch, seq, total, points, body), digest)
    return row is not None and isinstance(reason, str)
