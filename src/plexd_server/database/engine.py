"""The file ``registry.db``: opening it, migrating it, transactions, and a copy of it.

This module is the only one that knows the database to be SQLite.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from plexd_server.database import migrate
from plexd_server.errors import RegistryUnavailable, StartError
from plexd_server.opened_files import OpenedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",  # a revoked secret must not remain in a free page
)

# The driver's own BEGIN comes too late for a schema: a migration that fails would leave its tables.
_READ: Final = ("BEGIN",)
# A transaction that began with reading could not go on to write once another one has.
_WRITE: Final = ("BEGIN IMMEDIATE",)
_MIGRATE: Final = ("PRAGMA foreign_keys = OFF", "BEGIN IMMEDIATE")  # why: see migrations/


class Database:
    """Opens the file on construction, and makes (0600) and migrates it; raises `StartError`.

    Readers never wait. Writers wait for each other, in other processes too, and see what the one
    before wrote: a transaction for writing has the file to itself from its beginning on. While one
    of ``files`` is not in its place, there are no transactions; this one is added to them.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: Path = migrate.DIRECTORY,
        files: OpenedFiles | None = None,
    ) -> None:
        self.path = path
        self._migrations = migrations
        self._files = files or OpenedFiles()
        self._engine = sa.create_engine(f"sqlite:///{path}")
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(plexd_begin=_WRITE)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._files.add(path)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that sees one state throughout.

        Raises `RegistryUnavailable` when it cannot be read, and `FilesReplaced`.
        """
        self._files.check()
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that is durable when the body ends, and undone if the body raises.

        Raises `RegistryUnavailable` when it cannot be written, and `FilesReplaced`.
        """
        self._files.check()
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
        """Close the file. May be called again."""
        self._engine.dispose()

    def _open(self) -> None:
        try:
            self.path.touch(mode=0o600)
            with self._engine.connect() as connection:
                is_current = self._is_current(connection)
            if not is_current:
                self._migrate()
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

    def _is_current(self, connection: sa.Connection) -> bool:
        """Whether there is nothing to migrate. Raises `StartError` for a newer schema."""
        newest, applied = migrate.newest(self._migrations), migrate.applied(connection)
        found = max(applied or 0, _user_version(connection))
        if found > newest:
            raise StartError(
                f"{self.path} was written by a newer plexd-server (schema {found}); upgrade"
            )
        return applied == newest

    def _migrate(self) -> None:
        """Apply all missing migrations, or none if one fails."""
        engine = self._engine.execution_options(plexd_begin=_MIGRATE)
        with engine.begin() as connection:
            if not self._is_current(connection):  # no other process was faster
                migrate.upgrade(connection, self._migrations, _user_version(connection))
                newest = migrate.newest(self._migrations)
                # By this number programs without alembic refuse what is too new for them.
                connection.exec_driver_sql(f"PRAGMA user_version = {newest}")
        engine.dispose()  # its connection does not enforce foreign keys


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
    try:
        connection.isolation_level = None  # `_begin` begins transactions
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise


def _begin(connection: sa.Connection) -> None:
    for statement in connection.get_execution_options().get("plexd_begin", _READ):
        connection.exec_driver_sql(statement)


def _user_version(connection: sa.Connection) -> int:
    """The schema's number in the file's header, all that files before alembic record."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
