"""The files of a spool, and how they are replaced so that one to start from always exists."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from plexd.durable import make_directory, sync, write_private
from plexd.spool.errors import DiskError, SpoolLockedError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

_MOST_SET_ASIDE = 2
_LONGEST_NAME = 200
_COMPANIONS = ("-wal", "-shm", "-journal")


Identity = list[tuple[int, int]]


class HeldFile:
    """A file that only its owner may read, made if it is not there, and held open.

    Raises `DiskError`. A symbolic link in its place is not followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self.fd = os.open(path, flags, 0o600)

    def is_in_place(self) -> bool:
        """Return whether this is still the file behind its name."""
        found = os.fstat(self.fd)
        return _inode(self._path) == (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SpoolLock(HeldFile):
    """``flock`` on a file with the owner's pid in it; the kernel releases it when the process ends.

    Raises `SpoolLockedError`, or `DiskError` where there can be no such file. What is in the file
    is for people: it decides nothing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with ExitStack() as held, disk_errors():
            held.callback(self.close)
            self._take()
            held.pop_all()
        with suppress(OSError):  # a full disk does not prevent the lock
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)

    def _take(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolLockedError(self._pid()) from None

    def _pid(self) -> int:
        with suppress(OSError, ValueError):
            return int(os.pread(self.fd, 20, 0))
        return 0


class SpoolFiles:
    """Names in ``directory``, of the points of ``node_id``; methods raise `DiskError`.

    The ballast is a file of ``ballast_bytes``, kept for the day the disk is full: then not even
    deleting works.
    """

    def __init__(self, directory: Path, node_id: str, ballast_bytes: int) -> None:
        self.directory = directory
        self.database = directory / "spool.db"
        self.successor = directory / "spool.db.new"
        self.watermark = directory / "spool.mark"
        self._node = directory / "spool.node"
        self._ballast = directory / "spool.ballast"
        self._node_id = node_id
        self._ballast_bytes = ballast_bytes
        self._lock: SpoolLock | None = None

    # The directory, and whose it is

    def hold(self) -> Path | None:
        """Make the directory and take its lock, unless this process has it.

        What is here is this node's then; returns where another node's is now, if it was here.
        Raises `SpoolLockedError` if another process has the lock.
        """
        if self._lock is not None and self._lock.is_in_place():
            return None
        self._take_lock()
        try:
            aside = self._claim()
        except DiskError:
            self.release()  # without it, the next call would take another node's points for ours
            raise
        if aside is not None:
            self.hold()  # of the directory that is there now
        return aside

    def _take_lock(self) -> None:
        with disk_errors():
            make_directory(self.directory)
            if self.directory.stat().st_mode & 0o077:
                self.directory.chmod(0o700)
        self.release()
        self._lock = SpoolLock(self.directory / "spool.lock")

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> Path | None:
        if not self._node_id:
            return None
        with disk_errors():
            try:
                owner = self._node.read_text("utf-8", "replace")
            except FileNotFoundError:
                write_private(self._node, self._node_id.encode())
                sync(self.directory)
                return None
            return None if owner == self._node_id else self._make_way(owner)

    def _make_way(self, owner: str) -> Path:
        """Rename the directory; what this node left when it had to make way comes back."""
        aside = next(path for path in _others(self.directory, owner) if not path.exists())
        self.directory.rename(aside)
        mine = next(_others(self.directory, self._node_id))
        if mine.exists():
            mine.rename(self.directory)
        sync(self.directory.parent)
        return aside

    # The database

    def identity(self) -> Identity:
        """Return which files are behind the names of the database and its log."""
        return [_inode(path) for path in _family(self.database)[:2]]

    def drop_successor(self) -> None:
        """Delete what an interrupted salvage left behind."""
        with disk_errors():
            for path in _family(self.successor):
                path.unlink(missing_ok=True)

    def finish_succession(self) -> None:
        """Install the successor of a database that was set aside before the process ended."""
        with disk_errors():
            if self.database.exists() or not self.successor.exists():
                return
            for companion in _family(self.database)[1:]:
                companion.unlink(missing_ok=True)
            self._install_successor()

    def succeed(self, now: datetime) -> Path:
        """Set the database aside and put its successor in its place; returns where it is now.

        The database goes first: as long as it is there it is what the next start begins with,
        and without it the successor is.
        """
        stamp = now.strftime("%Y%m%dT%H%M%S")
        names = (f"spool.db.corrupt-{stamp}.{now.microsecond + i:06}Z" for i in range(1000))
        aside = next(path for name in names if not (path := self.directory / name).exists())
        with disk_errors():
            for path, kept in zip(_family(self.database), _family(aside), strict=True):
                with suppress(FileNotFoundError):
                    path.rename(kept)
            self._install_successor()
        with suppress(OSError):
            self._prune()
        return aside

    def _install_successor(self) -> None:
        self.successor.rename(self.database)
        sync(self.directory)

    def _prune(self) -> None:
        kept = self.directory.glob("spool.db.corrupt-*")
        found = sorted(path for path in kept if not path.name.endswith(_COMPANIONS))
        for old in found[:-_MOST_SET_ASIDE]:
            for path in _family(old):
                path.unlink(missing_ok=True)

    # The ballast

    def load_ballast(self) -> None:
        """Make the ballast, if there is room for it; never fails."""
        try:
            with closing(HeldFile(self._ballast)) as ballast:
                os.posix_fallocate(ballast.fd, 0, self._ballast_bytes)
        except (OSError, DiskError):
            self.drop_ballast()

    def drop_ballast(self) -> None:
        """Delete the ballast to free its room; never fails."""
        with suppress(OSError):
            self._ballast.unlink()


def _others(directory: Path, node_id: str) -> Iterator[Path]:
    """Yield where the points of another node may be kept; an id may hold any character."""
    name = f"{directory.name}.of-{quote(node_id, safe='')[:_LONGEST_NAME]}"
    numbers = ("", *(f".{number}" for number in range(1, 1000)))
    return (directory.with_name(name + number) for number in numbers)


def _family(path: Path) -> list[Path]:
    """Return a database and what SQLite keeps beside it, its log first."""
    return [path, *(path.with_name(path.name + ending) for ending in _COMPANIONS)]


def _inode(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return (0, 0)
