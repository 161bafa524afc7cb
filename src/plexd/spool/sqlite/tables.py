"""The statements on the spool's database."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import apsw

from plexd.api import BatchName, MetricBatch
from plexd.spool.budget import ROW_BYTES, Budget
from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.meta import Meta
from plexd.spool.port import Refusal
from plexd.spool.rows import Outline, Row, Sums
from plexd.spool.sqlite.schema import (
    check_schema,
    connect,
    connect_as_found,
    connect_readonly,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from plexd.spool.rows import Rows

_MOST_POINTS: Final = 2**31 - 1
_MOST_LETTERS, _MOST_LETTER_BYTES = 64, 1024 * 1024
_SHRINK_PAGES: Final = 64
_COLUMNS: Final = "id, epoch, place, stamped, kind, points, body"
# A damaged value may be of any type, and NULL, text or 2^63 must not get into a sum.
_SANE = f"typeof(points) = 'integer' AND points BETWEEN 1 AND {_MOST_POINTS}"


class SpoolTables:
    """`Rows` in a database, over one connection. Methods raise `DiskError` and `DamagedError`."""

    row_bytes = ROW_BYTES

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def _do(self, sql: str, bindings: tuple[object, ...] = ()) -> list[Any]:
        with translated():
            return self._connection.execute(sql, bindings).fetchall()

    @classmethod
    def open(cls, path: Path, budget: Budget) -> Self:
        """Return the database at ``path``; made if it is not there."""
        with translated():
            return cls(connect(path, budget))

    @classmethod
    def open_as_found(cls, path: Path, vfs: str | None = None) -> Self:
        """Return the database at ``path``, of which nothing is expected."""
        with translated():
            return cls(connect_as_found(path, vfs))

    @classmethod
    def open_readonly(cls, path: Path) -> Self:
        """Return the database at ``path``, on a disk that accepts no writes."""
        with translated():
            return cls(connect_readonly(path))

    def is_whole(self) -> bool:
        """Return whether the tables are found where they belong."""
        try:
            with translated():
                check_schema(self._connection)
        except (DamagedError, DiskError):
            return False
        return True

    def _value(self, sql: str) -> Any:
        found = self._do(sql)
        return found[0][0] if found else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._do("BEGIN IMMEDIATE")
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            with suppress(apsw.Error):  # the error before this one says why
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise

    def checkpoint(self) -> None:
        """Carry the -wal into the database and empty it."""
        self._do("PRAGMA wal_checkpoint(TRUNCATE)")

    def read_meta(self) -> Meta | None:
        """Return the content of ``meta``, None if there is none that is as it was written."""
        found = self._do("SELECT body, digest FROM meta WHERE one = 1")
        return Meta.decode(*found[0]) if found else None

    def write_meta(self, meta: Meta) -> None:
        """Replace the content of ``meta``."""
        body, digest = meta.encode()
        self._do("INSERT OR REPLACE INTO meta VALUES(1, ?, ?)", (digest, body))

    def put(self, row: Row) -> None:
        """Add a row."""
        names = (row.id, row.epoch, row.place, row.stamped, row.kind, row.points)
        self._do("INSERT INTO log VALUES(?, ?, ?, ?, ?, ?, ?, ?)", (*names, row.digest(), row.body))

    def put_once(self, row: Row) -> bool:
        """Add a row unless there is one in its place already; return whether it was added."""
        try:
            self.put(row)
        except DamagedError:
            return False
        return True

    def drop(self, number: int) -> None:
        """Delete the row with this id."""
        self._do("DELETE FROM log WHERE id = ?", (number,))
        if self._connection.changes() != 1:
            raise DamagedError("a row that was read cannot be found")

    def drop_through(self, number: int) -> None:
        """Delete all rows up to this id."""
        self._do("DELETE FROM log WHERE id <= ?", (number,))

    def last_id(self) -> int:
        """Return the highest id there is, 0 without rows."""
        return self._value("SELECT max(id) FROM log") or 0

    def ids_as_found(self) -> list[int]:
        """Return all ids that can be read, from either end of a table with a hole in it."""
        found: dict[int, None] = {}
        for order in ("ASC", "DESC"):
            try:
                sql = f"SELECT id FROM log ORDER BY id {order}"  # noqa: S608  # one of two words
                for (number,) in self._connection.execute(sql):
                    found[number] = None
            except apsw.Error:
                continue
            break
        return sorted(found)

    def outlines(self, after: int = -(2**63)) -> Iterator[Outline]:
        while (found := self._outline(after)) is not None:
            yield found
            after = found.id

    def _outline(self, after: int) -> Outline | None:
        sql = """SELECT id, epoch, place, points, length(body), stamped FROM log
                 WHERE id > ? ORDER BY id LIMIT 1"""
        found = self._do(sql, (after,))
        if not found:
            return None
        number, epoch, *rest = found[0]
        place, points, size, stamped = (value if isinstance(value, int) else 0 for value in rest)
        name = epoch if isinstance(epoch, str) else ""
        return Outline(
            number, name, place, points if 0 < points <= _MOST_POINTS else 0, size, stamped
        )

    def oldest(self) -> Outline | None:
        return self._outline(-(2**63))

    def read(self, number: int) -> Row | None:
        sql = f"SELECT {_COLUMNS}, digest FROM log WHERE id = ?"  # noqa: S608  # a constant
        found = self._do(sql, (number,))
        return Row.checked(found[0][:-1], found[0][-1]) if found else None

    def sums(self) -> Sums:
        sane = f"CASE WHEN {_SANE} THEN points END"
        sql = f"SELECT count(*), total({sane}), total(length(body)) FROM log"  # noqa: S608  # constants
        return Sums(*map(int, self._do(sql)[0]))

    def shrink(self) -> None:
        """Give free pages back to the disk, some at a time, once they are most of the file."""
        free, pages = self._value("PRAGMA freelist_count"), self._value("PRAGMA page_count")
        if free > _SHRINK_PAGES and free > pages // 2:
            self._do(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")

    def add_dead_letter(self, refusal: Refusal) -> None:
        """Keep a batch that has a name: the newest 64, up to 1 MiB."""
        name, body = refusal.batch.name, refusal.batch.to_json()
        if name is None:
            return
        row = Row(0, name.epoch, name.last, 0, 0, name.points, body)
        self._do(
            """INSERT INTO dead_letters(epoch, place, points, reason, digest, body)
               VALUES(?, ?, ?, ?, ?, ?)""",
            (row.epoch, row.place, row.points, refusal.reason, row.digest(), body),
        )
        self._do(
            """DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                 SELECT id, row_number() OVER newest AS nth, sum(length(body)) OVER newest AS size
                 FROM dead_letters WINDOW newest AS (ORDER BY id DESC))
               WHERE nth > ? OR size > ?)""",
            (_MOST_LETTERS, _MOST_LETTER_BYTES),
        )

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused and is still as it was written, oldest first."""
        sql = "SELECT epoch, place, points, body, digest, reason FROM dead_letters ORDER BY id"
        found = []
        for epoch, place, points, body, digest, reason in self._do(sql):
            row = Row.checked((0, epoch, place, 0, 0, points, body), digest)
            if row is not None and isinstance(reason, str):
                name = BatchName(row.epoch, row.first, row.points)
                found.append(Refusal(MetricBatch.of_json(row.body, name), reason))
        return found

    def count_dead_letters(self) -> int:
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


if TYPE_CHECKING:
    _: type[Rows] = SpoolTables
