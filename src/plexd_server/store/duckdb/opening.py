"""Opening the embedded store's file: it is created, or refused with what to do."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import duckdb

from plexd.durable import sync
from plexd_server.errors import StartError
from plexd_server.store.duckdb import rollups, schema
from plexd_server.store.duckdb.queries import TOTAL_RECEIVED, read_meta, read_one

if TYPE_CHECKING:
    from pathlib import Path

_THREADS = 2
_AGAIN_SECONDS = 0.02
_LOCKED = re.compile(r"lock.*PID (\d+)", re.DOTALL)


def open_database(
    path: Path, memory: str, *, patience_seconds: float = 0.0
) -> duckdb.DuckDBPyConnection:
    """Return a database of this version's schema. Raises `StartError`.

    A file that another process has open is tried again for so long: one that is being killed may
    still have it for a moment.
    """
    give_up = time.monotonic() + patience_seconds
    while True:
        try:
            return _open(path, memory)
        except duckdb.Error as err:
            if not _LOCKED.search(str(err)) or time.monotonic() >= give_up:
                raise _start_error(path, err) from err
        time.sleep(_AGAIN_SECONDS)


def _open(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    if not path.exists():
        _create(path, memory)
    connection = _connect(path, memory)
    try:
        _check_version(connection, path)
        _check_sum(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, memory: str) -> None:
    """Create the file under another name first: a half-made one, left by a kill, does not open."""
    draft = path.with_name(f"{path.stem}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    connection = _connect(draft, memory)
    try:
        create_tables(connection)
    finally:
        connection.close()
    # Unlike a rename, a link never replaces a file that another process made meanwhile.
    with suppress(FileExistsError):
        os.link(draft, path)
    sync(path.parent)
    for stale in path.parent.glob(f"{path.stem}.*.new*"):
        stale.unlink(missing_ok=True)


def _connect(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """Open a database that cannot reach beyond its own files, and lock that setting."""
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
    # It would delete the log at the name, also if that is another database's by then.
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("SET lock_configuration = true")
    return connection


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create them in one transaction: a kill leaves all of them or none."""
    connection.begin()
    for statement in (*schema.create_statements(), *rollups.create_statements()):
        connection.execute(statement)
    connection.commit()


def _add_rollups(connection: duckdb.DuckDBPyConnection) -> None:
    """Prepare a file of release 0.1.0 for rollups; its readings are rolled up bit by bit later."""
    connection.begin()
    for statement in rollups.create_statements():
        connection.execute(statement)
    version = str(schema.SCHEMA_VERSION)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])
    connection.commit()


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    if not connection.execute("SHOW TABLES").fetchall():
        create_tables(connection)
    if read_meta(connection, "schema_version") == schema.WITHOUT_ROLLUPS:
        _add_rollups(connection)
    if read_meta(connection, "schema_version") != schema.SCHEMA_VERSION:
        raise StartError(f"{path} was written by a newer plexd-server; upgrade")


def _check_sum(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Refuse a file in which the sum of receipts is not the number of points.

    Without its receipt, a batch that is sent again would be stored again.
    """
    points = read_one(connection, schema.COUNT_POINTS)
    received = read_one(connection, TOTAL_RECEIVED)
    unaccounted = read_meta(connection, schema.UNACCOUNTED)
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
