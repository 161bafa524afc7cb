"""The spool's database: its schema, how it is opened, and the statements on it."""

from __future__ import annotations

import functools
import os
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import apsw
from msgspec.structs import astuple

from plexd.api import BatchName, MetricBatch
from plexd.spool.budget import PAGE_BYTES, ROW_BYTES, Budget
from plexd.spool.errors import DamagedError, DiskError, SpoolError, disk_errors
from plexd.spool.meta import Meta
from plexd.spool.port import Refusal
from plexd.spool.rows import Outline, Row, Sizes
from plexd.spool.sqlite.files import HeldFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from plexd.spool.rows import Rows

_SCHEMA: Final = """
CREATE TABLE meta(one INTEGER PRIMARY KEY, digest BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE log(
    id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, place INTEGER NOT NULL, stamped INTEGER NOT NULL,
    kind INTEGER NOT NULL, points INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE dead_letters(
    id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, place INTEGER NOT NULL, points INTEGER NOT NULL,
    reason TEXT NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL);
PRAGMA application_id=0x706C7864; -- "plxd"
PRAGMA user_version=1;
"""
# The bytes of the header that are the same in every spool (the file format of SQLite, 1.3): all
# but counters, sizes, the list of free pages and the version of the library.
_HEADER_BYTES: Final = 100
_FIXED: Final = (slice(24), slice(40, 92))
_MOST_LETTERS, _MOST_LETTER_BYTES = 64, 1024 * 1024
_SHRINK_PAGES: Final = 64
# A damaged value may be of any type, and NULL, text or 2^63 must not get into a sum.
_POINTS: Final = f"iif(typeof(points) = 'integer' AND points BETWEEN 1 AND {2**31 - 1}, points, 0)"
_DAMAGED: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.FormatError,
    apsw.SQLError,
    apsw.SchemaChangeError,
    apsw.TooBigError,
    apsw.RangeError,
    apsw.NotFoundError,
    UnicodeDecodeError,  # a text that is not UTF-8
)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of SQLite in the body into this package's errors."""
    try:
        with disk_errors():
            yield
    except _DAMAGED as err:
        raise DamagedError(str(err)) from err
    except apsw.FullError as err:
        raise DiskError("the disk is full", is_full=True) from err
    except apsw.Error as err:
        is_read = getattr(err, "extendedresult", 0) == apsw.SQLITE_IOERR_READ
        raise DiskError(str(err), is_read=is_read) from err


@functools.cache
def _expected() -> tuple[bytes, list[Any]]:
    """Return first page and schema of a new database: always the same, root pages included."""
    with closing(apsw.Connection(":memory:")) as connection:
        _run(connection, f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL")
        connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()
        page = bytearray(connection.serialize("main")[:PAGE_BYTES])
        page[18:20] = b"\x02\x02"  # in memory there is no -wal
        return bytes(page), _schema_of(connection)


def _run(connection: apsw.Connection, *pragmas: str) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _schema_of(connection: apsw.Connection) -> list[Any]:
    return connection.execute("SELECT * FROM sqlite_schema").fetchall()


def first_page() -> bytes:
    """Return a first page for a database that lost its own, without size and free pages."""
    page = bytearray(_expected()[0])
    # Unequal change counters make SQLite take the size from the file.
    page[24:28], page[92:96] = b"\x00\x00\x00\x02", b"\x00\x00\x00\x01"
    page[32:40] = bytes(8)
    return bytes(page)


class SpoolTables:
    """`Rows` in a database, over one connection. Methods raise `DiskError` and `DamagedError`."""

    row_bytes = ROW_BYTES

    def __init__(self, path: Path, vfs: str = "") -> None:
        """Open the database at ``path``, of which nothing is expected and which stays as it is.

        The disk may accept no writes. Every read will report what is wrong.
        """
        flags = apsw.SQLITE_OPEN_READWRITE
        with _translated():
            self._connection = apsw.Connection(os.fspath(path), flags=flags, vfs=vfs or None)
        with suppress(apsw.Error):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _run(self._connection, "locking_mode=EXCLUSIVE")

    @classmethod
    def open(cls, path: Path, budget: Budget) -> Self:
        """Return the database at ``path``; made if it is not there, and checked."""
        # Made here, so that no other user can read it; SQLite gives the -wal the same mode.
        with closing(HeldFile(path)) as file, _translated():
            header = os.pread(file.fd, _HEADER_BYTES, 0)  # less of a new file
        if len(header) == _HEADER_BYTES and any(
            header[part] != _expected()[0][part] for part in _FIXED
        ):
            raise DamagedError("its header is not that of a spool")
        with ExitStack() as held, _translated():
            tables = cls(path)
            held.callback(tables.close)
            tables._set_up(budget)
            held.pop_all()
        return tables

    def _set_up(self, budget: Budget) -> None:
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        _run(
            self._connection,
            f"page_size={PAGE_BYTES}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={budget.checkpoint // PAGE_BYTES}",
            f"journal_size_limit={budget.checkpoint}",
            f"max_page_count={budget.pages}",
            "cache_size=-512",
            "temp_store=MEMORY",
            "trusted_schema=OFF",
            "cell_size_check=ON",
        )
        if not _schema_of(self._connection):
            self._connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()
            self.checkpoint()
        if _schema_of(self._connection) != _expected()[1]:
            raise DamagedError("its tables are not those of this version")

    def is_whole(self) -> bool:
        """Return whether the tables are found where they belong."""
        with suppress(SpoolError), _translated():
            return _schema_of(self._connection) == _expected()[1]
        return False

    def _do(self, sql: str, *bindings: object) -> list[Any]:
        with _translated():
            return self._connection.execute(sql, bindings).fetchall()

    def _value(self, sql: str) -> int:
        ((found,),) = self._do(sql)
        return found if isinstance(found, int) else 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._do("BEGIN IMMEDIATE")
        try:
            yield
            self._do("COMMIT")
            self._shrink()
        except BaseException:
            with suppress(apsw.Error):  # the error before this one says why
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
        body, digest = meta.encode()
        self._do("INSERT OR REPLACE INTO meta VALUES(1, ?, ?)", digest, body)

    def put(self, row: Row) -> None:
        *names, body = astuple(row)
        self._do("INSERT INTO log VALUES(?, ?, ?, ?, ?, ?, ?, ?)", *names, row.digest(), body)

    def drop(self, number: int) -> None:
        self._do("DELETE FROM log WHERE id = ?", number)
        if self._connection.changes() != 1:
            raise DamagedError("a row that was read cannot be found")

    def last_id(self) -> int:
        """Return the highest id there is, 0 without rows."""
        return self._value("SELECT max(id) FROM log")

    def ids_as_found(self) -> list[int]:
        """Return all ids that can be read, from either end of a table with a hole in it."""
        found: set[int] = set()
        for order in ("ASC", "DESC"):
            with suppress(apsw.Error):
                sql = f"SELECT id FROM log ORDER BY id {order}"  # noqa: S608  # one of two words
                found.update(number for (number,) in self._connection.execute(sql))
                break
        return sorted(found)

    def outlines(self, after: int = -(2**63)) -> Iterator[Outline]:
        sql = f"""SELECT id, epoch, place, {_POINTS}, length(body), stamped FROM log
                  WHERE id > ? ORDER BY id LIMIT 1"""  # noqa: S608  # a constant
        while found := self._do(sql, after):
            after, epoch, *rest = found[0]
            numbers = [each if isinstance(each, int) else 0 for each in rest]
            yield Outline(after, epoch if isinstance(epoch, str) else "", *numbers)

    def read(self, number: int) -> Row | None:
        sql = """SELECT id, epoch, place, stamped, kind, points, body, digest FROM log
                 WHERE id = ?"""
        found = self._do(sql, number)
        return Row.checked(found[0][:-1], found[0][-1]) if found else None

    def measure(self) -> Sizes:
        sql = f"SELECT count(*), total({_POINTS}), total(length(body)) FROM log"  # noqa: S608  # a constant
        rows, points, size = map(int, self._do(sql)[0])
        return Sizes(size + rows * self.row_bytes, points, self._count_dead_letters())

    def _shrink(self) -> None:
        """Give some of the room back that a drained backlog took."""
        free, pages = self._value("PRAGMA freelist_count"), self._value("PRAGMA page_count")
        if free > _SHRINK_PAGES and free > pages // 2:
            self._do(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")

    def add_dead_letter(self, refusal: Refusal) -> int:
        name, body = refusal.batch.name, refusal.batch.to_json()
        if name is not None:
            digest = Row(0, name.epoch, name.last, 0, 0, name.points, body).digest()
            self._do(
                """INSERT INTO dead_letters(epoch, place, points, reason, digest, body)
                   VALUES(?, ?, ?, ?, ?, ?)""",
                *(name.epoch, name.last, name.points, refusal.reason, digest, body),
            )
        self._do(
            """DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                 SELECT id, row_number() OVER newest AS nth, sum(length(body)) OVER newest AS size
                 FROM dead_letters WINDOW newest AS (ORDER BY id DESC))
               WHERE nth > ? OR size > ?)""",
            _MOST_LETTERS,
            _MOST_LETTER_BYTES,
        )
        return self._count_dead_letters()

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

    def _count_dead_letters(self) -> int:
        return self._value("SELECT count(*) FROM dead_letters")

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
