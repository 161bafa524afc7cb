"""The one directory in which a server keeps everything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plexd_server.errors import StartError
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.clock import Clock

__all__ = ["open_registry"]


def open_registry(data_dir: Path, clock: Clock) -> Registry:
    """The registry in the data directory, which is made if need be. Raises `StartError`."""
    _prepare(data_dir)
    return Registry(data_dir, clock=clock)


def _prepare(data_dir: Path) -> None:
    """Make the data directory, readable by its owner only, unless it is there."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise StartError(
            f"cannot make the data directory {data_dir}: {err.strerror}; choose another with "
            "--data-dir"
        ) from err
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise StartError(
            f"the data directory {data_dir} is not writable; check its owner, or choose another "
            "with --data-dir"
        )
