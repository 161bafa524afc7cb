"""The data directory: where a server keeps everything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plexd.durable import make_directory, sync
from plexd_server.errors import StartError
from plexd_server.registry import Registry, has_registry

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.clock import Clock
    from plexd_server.opened_files import OpenedFiles


def provide_registry(data_dir: Path, clock: Clock, files: OpenedFiles | None = None) -> Registry:
    """Open the registry in the data directory, and make what is missing. Raises `StartError`."""
    try:
        _make(data_dir)
    except OSError as err:
        raise StartError(
            f"cannot make the data directory {data_dir}: {err.strerror}; choose another with "
            "--data-dir"
        ) from err
    _check_writable(data_dir)
    return Registry(data_dir, clock=clock, files=files)


def has_points(data_dir: Path) -> bool:
    """Whether a server has kept points there."""
    return os.path.exists(data_dir / "points.duckdb")  # noqa: PTH110 -- never raises


def open_registry(data_dir: Path, clock: Clock) -> Registry:
    """Open a registry that exists; nothing is made. Raises `StartError`."""
    if not os.path.isdir(data_dir):  # noqa: PTH112 -- never raises
        raise StartError(
            f"there is no data directory {data_dir}; name the server's with --data-dir, or start "
            "a server with it first"
        )
    _check_writable(data_dir)
    if not has_registry(data_dir):
        raise StartError(
            f"there is no registry in {data_dir}; name the server's data directory with "
            "--data-dir, or start a server with it first"
        )
    return Registry(data_dir, clock=clock)


def _make(data_dir: Path) -> None:
    """Make the directory (0700) and what is missing above it, all durable. Raises `OSError`."""
    new = [parent for parent in data_dir.parents if not parent.exists()]
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    for parent in new:
        sync(parent.parent)
    make_directory(data_dir)


def _check_writable(data_dir: Path) -> None:
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise StartError(
            f"the data directory {data_dir} is not writable; check its owner, or choose another "
            "with --data-dir"
        )
