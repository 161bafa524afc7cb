"""One process at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from plexd.spool.errors import DiskError, SpoolLockedError

if TYPE_CHECKING:
    from pathlib import Path


class SpoolLock:
    """``flock`` on a file with the owner's pid in it; the kernel releases it when the process ends.

    Raises `SpoolLockedError`, or `DiskError` where there can be no such file. What is in the file
    is for people: it decides nothing.
    """

    def __init__(self, path: Path) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(path, flags, 0o600)
        except OSError as err:
            raise DiskError.of(err) from err
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = self._pid()
            self.release()
            raise SpoolLockedError(pid) from None
        except OSError as err:
            self.release()
            raise DiskError.of(err) from err
        with suppress(OSError):  # a full disk does not prevent the lock
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def _pid(self) -> int:
        try:
            return int(os.pread(self._fd, 20, 0))
        except (OSError, ValueError):
            return 0

    def is_at(self, path: Path) -> bool:
        """Return whether the file that is locked is still the one at ``path``."""
        try:
            return os.path.samestat(os.fstat(self._fd), path.lstat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
