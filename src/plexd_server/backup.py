"""A copy of the data directory that was opened once to see that it is one.

The registry is copied while others work on it. The points' file is another matter: its database
lets one process in, so it is copied only while no server has it open.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from plexd_server.errors import StartError
from plexd_server.store.duckdb import FILE_NAME, DuckDBStore
from plexd_server.store.opening import open_database

if TYPE_CHECKING:
    from pathlib import Path

    from plexd_server.registry import Registry

__all__ = ["back_up"]

_MEMORY: Final = "256MB"


def back_up(registry: Registry, data_dir: Path, directory: Path, *, with_points: bool) -> None:
    """Copy everything into ``directory``, which is made. Raises `StartError`, leaving none."""
    points = data_dir / FILE_NAME
    with_points = with_points and points.exists()
    if with_points:
        _settle(points)
    try:
        directory.mkdir(mode=0o700)
    except OSError as err:
        raise StartError(f"cannot make {directory}: {err.strerror}") from err
    try:
        registry.backup_to(directory)
        if with_points:
            _copy_points(points, directory / FILE_NAME)
        _sync(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _settle(points: Path) -> None:
    """Put what both logs hold into the database's file, and see that nobody else has it open."""
    try:
        DuckDBStore(points.parent).close()
        connection = open_database(points, _MEMORY)
    except StartError as err:
        raise StartError(
            f"{err}; points can be copied only while no server runs, so stop it for a moment, or "
            "copy the rest with --registry-only"
        ) from err
    try:
        connection.execute("CHECKPOINT")
    finally:
        connection.close()


def _copy_points(points: Path, target: Path) -> None:
    before = _stamp(points)
    try:
        shutil.copyfile(points, target)
        target.chmod(0o600)
    except OSError as err:
        raise StartError(f"cannot copy {points} to {target}: {err.strerror}") from err
    open_database(target, _MEMORY).close()  # counts its points against its receipts
    if _stamp(points) != before:
        raise StartError(f"{points} was written to meanwhile: a server was started; try again")


def _stamp(path: Path) -> tuple[int, int, bool]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, path.with_suffix(".duckdb.wal").exists()


def _sync(directory: Path) -> None:
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
