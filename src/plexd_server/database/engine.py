"""The file ``registry.db``: opening it, bringing it up to date, transactions, and a copy of it.

This module is the only one that knows the database to be SQLite.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from plexd_server.database.tables import METADATA, NODES, TOKENS
from plexd_server.errors import RegistryUnavailable, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Database"]

_VERSION = 2
_PRAGMAS = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",  # a revoked secret is not to stay in a free page
)


class Database:
    """Opens the file on construction, making it (0600) if need be; raises `StartError`.

    Readers never wait. Writers wait for each other, in other processes too, and see what the one
    before wrote: a transaction for writing has the file to itself from its beginning on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(f"sqlite:///{path}")
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(plexd_writes=True)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state throughout. Raises `RegistryUnavailable`."""
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is on the disk when the body ends, or has no effect if it raises.

        Raises `RegistryUnavailable` when it cannot be written.
        """
        with _translated(), self._writer.begin() as connection:
            yield connection

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy while others work, and read it back. Raises `StartError`."""
        try:
            with closing(sqlite3.connect(self.path)) as source, closing(_new(target)) as copy:
                source.backup(copy)
                verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
        except (OSError, sqlite3.Error) as err:
            raise StartError(f"cannot copy the registry to {target}: {err}") from err
        if verdict != "ok":
            raise StartError(f"the copy {target} is damaged: {verdict}")

    def close(self) -> None:
        """Let go of the file. May be called again."""
        self._engine.dispose()

    def _open(self) -> None:
        try:
            self.path.touch(mode=0o600)
            with self._writer.begin() as connection:
                self._migrate(connection)
        except (OSError, sa.exc.OperationalError) as err:
            reason = getattr(err, "strerror", None) or getattr(err, "orig", None) or err
            raise StartError(
                f"cannot open {self.path}: {reason}; check the directory's owner and free space, "
                "or choose another with --data-dir"
            ) from err
        except sa.exc.DatabaseError as err:
            raise StartError(
                f"{self.path} is damaged ({err.orig}); put a backup in its place"
            ) from err

    def _migrate(self, connection: sa.Connection) -> None:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > _VERSION:
            raise StartError(
                f"{self.path} was written by a newer plexd-server (schema {version}); upgrade"
            )
        if version == _VERSION:
            return
        if version == 1:
            connection.exec_driver_sql("ALTER TABLE nodes RENAME TO nodes_1")
        METADATA.create_all(connection)
        if version == 1:
            _take_over_version_1(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")


def _take_over_version_1(connection: sa.Connection) -> None:
    """Version 1 had one table: a node, its address and the hash of its only token."""
    moment = sa.DateTime(timezone=True)
    old = sa.table("nodes_1", *map(sa.column, ("node_id", "mesh_ip", "token_hash")),
                   sa.column("created_at", moment))  # fmt: skip
    for row in connection.execute(sa.select(old)).all():
        node = {"node_id": row.node_id, "mesh_ip": row.mesh_ip, "created_at": row.created_at}
        connection.execute(NODES.insert().values(node))
        token = {"token_hash": row.token_hash, "purpose": "node"}
        connection.execute(
            TOKENS.insert().values(node_id=row.node_id, created_at=row.created_at, **token)
        )
    connection.exec_driver_sql("DROP TABLE nodes_1")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DatabaseError as err:
        raise RegistryUnavailable("the registry cannot be read or written now") from err


def _new(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600, exist_ok=False)
    return sqlite3.connect(path)


def _configure(connection: sqlite3.Connection, _: Any) -> None:
    """Readers never wait for the writer, writers wait for each other, a commit is on the disk."""
    try:
        connection.isolation_level = None  # transactions are begun below
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise


def _begin(connection: sa.Connection) -> None:
    # A transaction that began with reading could not go on to write once another one has.
    writes = connection.get_execution_options().get("plexd_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
