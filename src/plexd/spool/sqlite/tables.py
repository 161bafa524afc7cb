"""The statements on the spool's database."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import apsw

from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.sqlite.meta import Meta
from plexd.spool.sqlite.rows import MOST_POINTS, Row
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

    from plexd.spool.sqlite.budget import Budget

_COLUMNS = "id, epoch, place, stamped, kind, points, body"
# A damaged value may be of any type, and NULL, text or 2^63 must not get into a sum.
_SANE = f"typeof(points) = 'integer' AND points BETWEEN 1 AND {MOST_POINTS}"


class Outline(NamedTuple):
    """A row without its body, not checked against its digest: numbers may be 0 where damaged."""

    id: int
    epoch: str
    place: int
    points: int
    bytes: int
    stamped: int


class Sums(NamedTuple):
    """How many rows there are, the points in them, and the bytes of their bodies."""

    rows: int
    points: int
    bytes: int


class SpoolTables:
    """One connection, with the statements the spool needs."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._do = connection.execute

    @classmethod
    def open(cls, path: Path | None, budget: Budget) -> Self:
        """Return the database at ``path``, or one in memory; made if it is not there."""
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

    def _value(self, sql: str, bindings: tuple[object, ...] = ()) -> Any:
        row = self._do(sql, bindings).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the body does, or nothing of it."""
        self._do("BEGIN IMMEDIATE")
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            with suppress(apsw.Error):  # the error before this one says why
                if self._connection.in_transaction:
                    self._do("ROLLBACK")
            raise

    def checkpoint(self) -> None:
        """Carry the -wal into the database and empty it."""
        self._do("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def read_meta(self) -> Meta | None:
        """Return the content of ``meta``, None if there is none that is as it was written."""
        found = self._do("SELECT body, digest FROM meta WHERE one = 1").fetchone()
        return None if found is None else Meta.decode(*found)

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
        except apsw.ConstraintError:
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
                for (number,) in self._do(f"SELECT id FROM log ORDER BY id {order}"):  # noqa: S608  # one of two words
                    found[number] = None
            except apsw.Error:
                continue
            break
        return sorted(found)

    def outlines(self, after: int = -(2**63)) -> Iterator[Outline]:
        """Yield the rows after the id ``after``, oldest first."""
        while (found := self._outline(after)) is not None:
            yield found
            after = found.id

    def _outline(self, after: int) -> Outline | None:
        sql = """SELECT id, epoch, place, points, length(body), stamped FROM log
                 WHERE id > ? ORDER BY id LIMIT 1"""
        found = self._do(sql, (after,)).fetchone()
        if found is None:
            return None
        number, epoch, *rest = found
        place, points, size, stamped = (value if isinstance(value, int) else 0 for value in rest)
        name = epoch if isinstance(epoch, str) else ""
        return Outline(
            number, name, place, points if 0 < points <= MOST_POINTS else 0, size, stamped
        )

    def oldest(self) -> Outline | None:
        """Return the oldest row."""
        return self._outline(-(2**63))

    def read(self, number: int) -> Row | None:
        """Return the row with this id; None if it is not as it was written."""
        found = self._do(f"SELECT {_COLUMNS}, digest FROM log WHERE id = ?", (number,)).fetchone()  # noqa: S608  # a constant
        return None if found is None else Row.checked(found[:-1], found[-1])

    def sums(self) -> Sums:
        """Return how much there is."""
        sql = f"SELECT count(*), total(CASE WHEN {_SANE} THEN points END), total(length(body)) FROM log"  # noqa: E501, S608  # a constant
        rows, points, size = self._do(sql).fetchone() or (0, 0, 0)
        return Sums(rows, int(points), int(size))

    def free_pages(self) -> tuple[int, int]:
        """Return pages that are free, and all pages."""
        return self._value("PRAGMA freelist_count"), self._value("PRAGMA page_count")

    def shrink(self, pages: int) -> None:
        """Give up to ``pages`` free pages back to the disk."""
        self._do(f"PRAGMA incremental_vacuum({pages})").fetchall()

    def add_dead_letter(self, row: Row, reason: str, most_rows: int, most_bytes: int) -> None:
        """Keep what was refused, and delete the oldest beyond these limits."""
        self._do(
            """INSERT INTO dead_letters(epoch, place, points, reason, digest, body)
               VALUES(?, ?, ?, ?, ?, ?)""",
            (row.epoch, row.place, row.points, reason, row.digest(), row.body),
        )
        self._do(
            """DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                 SELECT id, row_number() OVER newest AS nth, sum(length(body)) OVER newest AS size
                 FROM dead_letters WINDOW newest AS (ORDER BY id DESC))
               WHERE nth > ? OR size > ?)""",
            (most_rows, most_bytes),
        )

    def dead_letters(self) -> Iterator[tuple[Row, str]]:
        """Yield what was refused and is as it was written, oldest first, each with its reason."""
        sql = "SELECT epoch, place, points, body, digest, reason FROM dead_letters ORDER BY id"
        for epoch, place, points, body, digest, reason in self._do(sql):
            row = Row.checked((0, epoch, place, 0, 0, points, body), digest)
            if row is not None and isinstance(reason, str):
                yield row, reason

    def count_dead_letters(self) -> int:
        """Return how many refused batches are kept."""
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
