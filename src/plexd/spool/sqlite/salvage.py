"""Carrying what can be read of a damaged database into a new one."""

from __future__ import annotations

from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import apsw

from plexd.spool.errors import DamagedError, SpoolError
from plexd.spool.sqlite.tables import SpoolTables, first_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")
_ROWS_AT_ONCE = 16
_PATCHING = "plexd-salvage"


def salvage_file(path: Path, target: SpoolTables) -> int:
    """Salvage a file that is not open; return how many rows.

    If its tables are not the expected ones, then also as if its first page were that of a new
    spool: without that page SQLite finds no table, although all rows may be there.
    """
    with closing(SpoolTables(path)) as source:
        copied = salvage(source, target)
        if source.is_whole():
            return copied
    vfs = _PatchingVFS(_PATCHING, "")
    try:
        with closing(SpoolTables(path, _PATCHING)) as source:
            return copied + salvage(source, target)
    finally:
        vfs.unregister()


class _PatchingVFS(apsw.VFS):
    """Reads files as they are, but for the first page of a database."""

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # SQLite's name
        is_database = flags[0] & apsw.SQLITE_OPEN_MAIN_DB
        return (_PatchedFile if is_database else apsw.VFSFile)("", name, flags)


class _PatchedFile(apsw.VFSFile):
    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  # SQLite's name
        page = first_page()
        if offset < len(page):
            return page[offset : offset + amount]
        return super().xRead(amount, offset)


def salvage(source: SpoolTables, target: SpoolTables) -> int:
    """Copy every row that is as it was written, names and numbers included; return how many.

    Raises `DiskError` if the new one cannot be written.
    """
    copied, ids = 0, iter(source.ids_as_found())
    while some := list(islice(ids, _ROWS_AT_ONCE)):
        with target.transaction():
            copied += sum(_copy(number, source, target) for number in some)
    with target.transaction():
        _copy_the_rest(source, target)
    target.checkpoint()
    return copied


def _copy(number: int, source: SpoolTables, target: SpoolTables) -> bool:
    row = _if_readable(lambda: source.read(number))
    with suppress(DamagedError):  # there may be one in its place
        if row is not None:
            target.put(row)
            return True
    return False


def _copy_the_rest(source: SpoolTables, target: SpoolTables) -> None:
    meta, letters = _if_readable(source.read_meta), _if_readable(source.dead_letters)
    if meta is not None:
        target.write_meta(meta)
    if not target.dead_letters():
        for letter in letters or ():
            target.add_dead_letter(letter)


def _if_readable(read: Callable[[], _T]) -> _T | None:
    with suppress(SpoolError):
        return read()
    return None
