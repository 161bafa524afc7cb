"""What may go wrong with a spool. Only `SpoolLockedError` reaches the caller.

SpoolError
├── SpoolLockedError   another process has this spool: end, and log it
├── DiskError          the disk does not do what was asked: try again later, with a new connection
└── DamagedError       the file is not what was written: set it aside and salvage
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class SpoolError(Exception):
    """Any of these. ``is_full``: there is no space. ``is_read``: bytes cannot be read."""

    is_full = is_read = False


class SpoolLockedError(SpoolError):
    """Another process has this spool; ``pid`` is that process, 0 if unknown."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"spool locked by pid {pid}" if pid else "spool locked by another process")
        self.pid = pid


class DiskError(SpoolError):
    """An operating system's refusal; the text is its reason."""

    def __init__(self, reason: str, *, is_full: bool = False, is_read: bool = False) -> None:
        super().__init__(reason)
        self.is_full, self.is_read = is_full, is_read


class DamagedError(SpoolError):
    """The file contradicts itself, or is no database; the text is SQLite's reason or ours."""


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise the operating system's refusals in the body as errors of this package."""
    try:
        yield
    except OSError as err:
        is_full = err.errno in {errno.ENOSPC, errno.EDQUOT}
        raise DiskError(err.strerror or str(err), is_full=is_full) from err
