"""The data directory: what a run needs of it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from plexd.agent.errors import NotReadyError
from plexd.text import printable

if TYPE_CHECKING:
    from pathlib import Path


def check_data_dir(path: Path) -> None:
    """Raise `NotReadyError`, saying what to do, unless ``path`` is a directory."""
    try:
        is_there = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    except OSError as err:  # too long, or in a directory that this user must not enter
        raise NotReadyError(f"cannot use data_dir {printable(path)}: {err.strerror}") from None
    if not is_there:
        raise NotReadyError(
            f"data_dir {printable(path)} is no directory; create it for the user plexd runs as, "
            "mode 0700"
        )


def why_not_writable(path: Path) -> str:
    """What keeps this user from writing into the data directory; empty if nothing does."""
    if os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        return ""
    return (
        f"data_dir {printable(path)} cannot be written to; give it to the user plexd runs as, "
        "or check whether it is mounted read-only"
    )
