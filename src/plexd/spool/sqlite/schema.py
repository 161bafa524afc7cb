"""The spool's database as a file: its schema, its first page, and what SQLite says about it."""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import apsw

from plexd.spool.budget import PAGE_BYTES, Budget
from plexd.spool.errors import DamagedError, DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


APPLICATION_ID = 0x706C7864  # "plxd"
SCHEMA_VERSION = 1

_SCHEMA = f"""
CREATE TABLE meta(one INTEGER PRIMARY KEY, digest BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE log(
    id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, place INTEGER NOT NULL, stamped INTEGER NOT NULL,
    kind INTEGER NOT NULL, points INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE dead_letters(
    id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, place INTEGER NOT NULL, points INTEGER NOT NULL,
    reason TEXT NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL);
PRAGMA application_id={APPLICATION_ID};
PRAGMA user_version={SCHEMA_VERSION};
"""
_DAMAGED = (
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
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of SQLite and the system in the body into this package's errors."""
    try:
        yield
    except _DAMAGED as err:
        raise DamagedError(str(err)) from err
    except UnicodeDecodeError as err:  # a text that is not UTF-8
        raise DamagedError(str(err)) from err
    except apsw.FullError as err:
        raise DiskError("the disk is full", is_full=True) from err
    except apsw.Error as err:
        is_read = getattr(err, "extendedresult", 0) == apsw.SQLITE_IOERR_READ
        raise DiskError(str(err), is_read=is_read) from err
    except OSError as err:
        raise DiskError.of(err) from err


def connect(path: Path, budget: Budget) -> apsw.Connection:
    """Return the database at ``path``; made if it is not there, and checked.

    Exclusive locking keeps the index of the -wal in this process' own memory: there is no
    -shm file that could be damaged, or cut short while it is mapped.
    """
    # Made here, so that no other user can read it; SQLite gives the -wal the same mode.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _check_header(os.pread(fd, len(_HEADER_MASK), 0))
    finally:
        os.close(fd)
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _set_up(connection, budget)
        check_schema(connection)
    except BaseException:
        with suppress(apsw.Error):
            connection.close(True)  # noqa: FBT003  # apsw takes it by position only
        raise
    return connection


def connect_as_found(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Return the database at ``path``, of which nothing is expected and which is left as it is."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    with suppress(apsw.Error):  # every read will report it
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    return connection


def connect_readonly(path: Path) -> apsw.Connection:
    """Return the database at ``path``, opened for reading only."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    return connection


def _set_up(connection: apsw.Connection, budget: Budget) -> None:
    for pragma in (
        f"page_size={PAGE_BYTES}",
        "locking_mode=EXCLUSIVE",
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
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if not _schema_of(connection):
        connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check_schema(connection: apsw.Connection) -> None:
    """Raise `DamagedError` unless tables and root pages are those of this version."""
    if _schema_of(connection) != _expected()[1]:
        raise DamagedError("its tables are not those of this version")


def _schema_of(connection: apsw.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM sqlite_schema").fetchall()


@functools.cache
def _expected() -> tuple[bytes, list[tuple[object, ...]]]:
    """Return first page and schema of a new database: always the same, root pages included."""
    connection = apsw.Connection(":memory:")
    try:
        for pragma in (f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()
        page = bytearray(connection.serialize("main")[:PAGE_BYTES])
        page[18:20] = b"\x02\x02"  # in memory there is no -wal
        return bytes(page), _schema_of(connection)
    finally:
        connection.close()


def first_page() -> bytes:
    """Return a first page for a database that lost its own, without size and free pages."""
    page = bytearray(_expected()[0])
    # Unequal change counters make SQLite take the size from the file.
    page[24:28], page[92:96] = b"\x00\x00\x00\x02", b"\x00\x00\x00\x01"
    page[32:40] = bytes(8)
    return bytes(page)


# The bytes of the header that are the same in every spool (the file format of SQLite, 1.3): all
# but counters, sizes, the list of free pages and the version of the library.
_HEADER_MASK = b"".join(
    (b"\xff" if is_fixed else b"\x00") * count
    for count, is_fixed in ((24, True), (16, False), (16, True), (4, True), (32, True), (8, False))
)


def _check_header(found: bytes) -> None:
    if len(found) < len(_HEADER_MASK):
        return  # new, or SQLite will say so
    expected = _expected()[0]
    for mask, byte, wanted in zip(_HEADER_MASK, found, expected, strict=False):
        if mask and byte != wanted:
            raise DamagedError("its header is not that of a spool")
