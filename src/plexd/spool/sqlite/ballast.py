"""Space kept for the day the disk is full: on a full disk not even deleting works."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Ballast:
    """A file of ``size`` bytes that takes up room on the disk until it is dropped."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def load(self) -> None:
        """Make the file, if there is room for it; never fails."""
        try:
            if self._path.lstat().st_size >= self._size:
                return
        except OSError:
            pass
        try:
            self._fill()
        except OSError:
            self.drop()

    def _fill(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size)
        finally:
            os.close(fd)

    def drop(self) -> None:
        """Delete the file to free its room; never fails."""
        with suppress(OSError):
            self._path.unlink()
