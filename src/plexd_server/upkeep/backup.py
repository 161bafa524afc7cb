"""A copy of the data directory, opened once to see that it is whole.

The registry is copied while others work on it, the points' file while nobody writes to it: a
running server pauses its writes for that long.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final

from plexd.durable import sync
from plexd_server.errors import StartError
from plexd_server.store import DuckDBStore
from plexd_server.store.duckdb import open_database
from plexd_server.store.embedded import FILE_NAME
from plexd_server.upkeep.quiesce import writes_paused

if TYPE_CHECKING:
    from pathlib import Path

    from plexd_server.registry import Registry

_MEMORY: Final = "256MB"


def back_up(registry: Registry, data_dir: Path, directory: Path, *, with_points: bool) -> None:
    """Copy everything into a new ``directory``. Raises `StartError` and then leaves none."""
    try:
        directory.mkdir(mode=0o700)
    except OSError as err:
        raise StartError(f"cannot make {directory}: {err.strerror}") from err
    try:
        registry.backup_to(directory)
        if with_points and (data_dir / FILE_NAME).exists():
            _copy_points(data_dir / FILE_NAME, directory / FILE_NAME)
        for path in (*directory.iterdir(), directory, directory.parent):
            sync(path)
    except BaseException as err:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(err, OSError):
            raise StartError(f"cannot copy to {directory}: {err.strerror}") from err
        raise


def _copy_points(points: Path, target: Path) -> None:
    with writes_paused(points.parent) as is_paused:
        if not is_paused:
            _settle(points.parent)
        *_, log_bytes = before = _stamp(points)
        try:
            shutil.copyfile(points, target)
            target.chmod(0o600)
        except OSError as err:
            raise StartError(f"cannot copy {points} to {target}: {err.strerror}") from err
        if _stamp(points) != before or log_bytes:
            raise StartError(f"{points} was written to meanwhile; try again")
    open_database(target, _MEMORY).close()  # counts its points against its receipts


def _settle(data_dir: Path) -> None:
    """Put what both logs hold into the database's file; fails if another process has it open."""
    DuckDBStore(data_dir).close()
    with closing(open_database(data_dir / FILE_NAME, _MEMORY)) as connection:
        connection.execute("CHECKPOINT")


def _stamp(points: Path) -> tuple[int, int, int]:
    """Return the file's size and time of change, and the size of its log."""
    found, log = points.stat(), points.with_suffix(".duckdb.wal")
    return found.st_size, found.st_mtime_ns, log.stat().st_size if log.exists() else 0
