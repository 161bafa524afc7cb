"""Opening the embedded store's file: made, upgraded or refused with what to do about it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import duckdb

from plexd.durable import sync
from plexd_server.errors import StartError
from plexd_server.store.duckdb import ledger_tables, schema
from plexd_server.store.duckdb.rows import read_meta, read_one

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["migrate", "open_database"]

_THREADS = 2
_LOCKED = re.compile(r"lock.*PID (\d+)", re.DOTALL)


def open_database(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """A database of our schema. Raises `StartError`."""
    try:
        if not path.exists():
            _make(path, memory)
        connection = _connect(path, memory)
        try:
            migrate(connection, path)
            _check_sum(connection, path)
        except BaseException:
            connection.close()
            raise
    except duckdb.Error as err:
        raise _start_error(path, err) from err
    return connection


def _make(path: Path, memory: str) -> None:
    """Make the file under another name first: one that a kill left half made cannot be opened."""
    draft = path.with_name(f"{path.stem}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    connection = _connect(draft, memory)
    try:
        migrate(connection, draft)
    finally:
        connection.close()
    # Unlike a rename, a link never takes the place of what somebody else made meanwhile.
    with suppress(FileExistsError):
        os.link(draft, path)
    sync(path.parent)
    for left in path.parent.glob(f"{path.stem}.*.new*"):
        left.unlink(missing_ok=True)


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


def migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make what is missing in one transaction: a kill leaves the old version or the new one."""
    statements = _missing(connection, path)
    if statements:
        connection.begin()
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _missing(connection: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """The statements that lead to this version."""
    if not connection.execute("SHOW TABLES").fetchall():
        return list(schema.create_statements())
    version = read_meta(connection, "schema_version")
    if version is None or version > schema.SCHEMA_VERSION:
        raise StartError(f"{path} was written by a newer plexd-server; upgrade")
    return list(schema.upgrade_statements(version)) if version < schema.SCHEMA_VERSION else []


def _check_sum(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Refuse a file whose receipts do not account for its points, and so miss some.

    Without a receipt, a batch that is sent again would be stored again.
    """
    points = read_one(connection, schema.COUNT_POINTS)
    received = read_one(connection, ledger_tables.TOTAL_RECEIVED)
    unaccounted = read_meta(connection, ledger_tables.UNACCOUNTED)
    if unaccounted is None or points != received + unaccounted:
        raise StartError(
            f"{path} is damaged (it holds {points} points, and receipts for "
            f"{received + (unaccounted or 0)}); put a backup in its place, or move it away to "
            "start with an empty store"
        )


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
