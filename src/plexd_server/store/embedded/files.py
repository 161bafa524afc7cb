"""The store's files in the data directory, and the lock that keeps a second server out of it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from plexd_server.errors import StartError

FILE_NAME: Final = "points.duckdb"
JOURNAL_NAME: Final = "journal"
_LOCKS: Final = Path("/proc/locks")  # proc_locks(5)


class DirectoryLock:
    """The data directory, locked for this object. Raises `StartError` if another one has it.

    The kernel releases it with the process, however that ends. A file system without such locks
    goes without: DuckDB still locks its file.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            self._descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise StartError(f"cannot open {data_dir}: {err.strerror}") from err
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = _holder(self._descriptor)
            self.release()
            raise StartError(
                f"{data_dir} is in use by another process{holder}; stop that, or choose another "
                "directory with --data-dir"
            ) from err
        except OSError:
            pass

    def release(self) -> None:
        """Let others have it. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return which process holds the lock, in brackets; empty if the kernel does not say."""
    inode = os.fstat(descriptor).st_ino
    try:
        found = re.search(rf"FLOCK .* (\d+) [\da-f:]+:{inode} ", _LOCKS.read_text())
    except OSError:
        return ""
    return f" (pid {found[1]})" if found else ""
