"""The files of a spool, and how they are replaced so that one to start from always exists."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from plexd.durable import make_directory, sync, write_private
from plexd.spool.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

_MOST_SET_ASIDE = 2
_LONGEST_NAME = 200
_COMPANIONS = ("-wal", "-shm", "-journal")


class SpoolFiles:
    """Names in ``directory``, of the points of ``node_id``; methods raise `DiskError`."""

    def __init__(self, directory: Path, node_id: str = "") -> None:
        self.directory = directory
        self._node_id = node_id
        self._node = directory / "spool.node"
        self.database = directory / "spool.db"
        self.successor = directory / "spool.db.new"
        self.watermark = directory / "spool.mark"
        self.lock = directory / "spool.lock"
        self.ballast = directory / "spool.ballast"

    def make_directory(self) -> None:
        """Make it if it is not there, open to its owner only."""
        with _translated():
            make_directory(self.directory)
            if self.directory.stat().st_mode & 0o077:
                self.directory.chmod(0o700)

    def claim(self) -> Path | None:
        """Make sure that what is here is this node's; return where another node's is now, if any.

        The directory then holds what this node left when it had to make way, or nothing.
        """
        if not self._node_id:
            return None
        with _translated():
            owner = self._owner()
            if owner == self._node_id:
                return None
            if owner is None:
                write_private(self._node, self._node_id.encode())
                sync(self.directory)
                return None
            return self._make_way(owner)

    def _owner(self) -> str | None:
        try:
            return self._node.read_text("utf-8", "replace")
        except FileNotFoundError:
            return None

    def _make_way(self, owner: str) -> Path:
        aside = next(path for path in _others(self.directory, owner) if not path.exists())
        self.directory.rename(aside)
        mine = next(_others(self.directory, self._node_id))
        if mine.exists():
            mine.rename(self.directory)
        sync(self.directory.parent)
        return aside

    def identity(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return which files are behind the names of the database and its log."""
        return _identity(self.database), _identity(_with(self.database, "-wal"))

    def watermark_identity(self) -> tuple[int, int]:
        """Return which file is behind the name of the watermark."""
        return _identity(self.watermark)

    def drop_successor(self) -> None:
        """Delete what an interrupted salvage left behind."""
        with _translated():
            for path in _family(self.successor):
                path.unlink(missing_ok=True)

    def finish_succession(self) -> None:
        """Install the successor of a database that was set aside before the process ended."""
        with _translated():
            if self.database.exists() or not self.successor.exists():
                return
            for companion in _COMPANIONS:
                _with(self.database, companion).unlink(missing_ok=True)
            self.successor.rename(self.database)
            sync(self.directory)

    def succeed(self, now: datetime) -> Path:
        """Set the database aside and put its successor in its place; returns where it is now.

        The database goes first: as long as it is there it is what the next start begins with,
        and without it the successor is.
        """
        aside = self._free_name(now)
        with _translated():
            for companion in ("", *_COMPANIONS):
                with suppress(FileNotFoundError):
                    _with(self.database, companion).rename(_with(aside, companion))
            self.successor.rename(self.database)
            sync(self.directory)
        with suppress(OSError):
            self._prune()
        return aside

    def _free_name(self, now: datetime) -> Path:
        stamp = now.strftime("%Y%m%dT%H%M%S")
        names = (f"spool.db.corrupt-{stamp}.{now.microsecond + i:06}Z" for i in range(1000))
        return next(path for name in names if not (path := self.directory / name).exists())

    def _prune(self) -> None:
        found = sorted(
            path
            for path in self.directory.glob("spool.db.corrupt-*")
            if not path.name.endswith(_COMPANIONS)
        )
        for old in found[:-_MOST_SET_ASIDE]:
            for path in _family(old):
                path.unlink(missing_ok=True)


def _others(directory: Path, node_id: str) -> Iterator[Path]:
    """Yield where the points of another node may be kept; an id may hold any character."""
    name = f"{directory.name}.of-{quote(node_id, safe='')[:_LONGEST_NAME]}"
    yield directory.with_name(name)
    yield from (directory.with_name(f"{name}.{number}") for number in range(1, 1000))


def _with(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _family(path: Path) -> list[Path]:
    return [_with(path, ending) for ending in ("", *_COMPANIONS)]


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.lstat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise DiskError.of(err) from err
