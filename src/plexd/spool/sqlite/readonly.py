"""A database that can only be read: what a disk still gives that accepts no writes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import apsw

from plexd.spool.errors import DamagedError, DiskError, SpoolError
from plexd.spool.sqlite.schema import translated
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.spool.sqlite.meta import Meta
    from plexd.spool.sqlite.rows import Row


class ReadonlyTables(SpoolTables):
    """Reads what is in ``path``; changes are accepted and go nowhere.

    Rows that were dropped are skipped from then on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_open = False
        self._behind = -(2**63)

    def _ready(self) -> None:
        if self._is_open:
            return
        with translated():
            flags = apsw.SQLITE_OPEN_READONLY
            connection = apsw.Connection(str(self._path), flags=flags)
        super().__init__(connection)
        self._is_open = True
        with translated():
            self._do("PRAGMA locking_mode=EXCLUSIVE").fetchall()

    def outline(self, table: str, after: int = -(2**63)) -> tuple[int, int, int, int] | None:
        """Return the outline of a row that was not dropped; None where nothing can be read."""
        try:
            self._ready()
            with translated():
                return super().outline(table, max(after, self._behind))
        except SpoolError:
            return None

    def read(self, table: str, place: int) -> Row:
        """Return the row; one that cannot be read now is a `DiskError`, no damage yet."""
        try:
            self._ready()
            with translated():
                row = super().read(table, place)
        except DamagedError as err:
            raise DiskError(str(err)) from err
        if row is None:
            raise DiskError("a row cannot be read")
        return row

    def drop(self, table: str, place: int) -> None:
        """Skip everything up to this row from now on: only the head is ever dropped."""
        if table == "batches":
            self._behind = place

    def begin(self) -> None:
        pass

    def commit(self) -> None:
        pass

    def roll_back(self) -> None:
        pass

    def write_meta(self, meta: Meta) -> None:
        pass

    def add_dead_letter(self, values: tuple[object, ...], most_rows: int, most_bytes: int) -> None:
        pass  # refusals are kept once the disk is back

    def count_dead_letters(self) -> int:
        return 0

    def free_pages(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._is_open:
            with suppress(apsw.Error):
                super().close()
            self._is_open = False
