"""A disk that fails at a chosen moment, for everything SQLite does in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["FAULTS", "BadSector", "FaultyDisk"]

_PAGE_BYTES = 4096
FAULTS = {
    "full": ("write", apsw.FullError),
    "write": ("write", apsw.IOError),
    "sync": ("sync", apsw.IOError),
    "read": ("read", apsw.IOError),
    "open": ("open", apsw.CantOpenError),
}


class FaultyDisk(apsw.VFS):
    """While it is entered, every new connection uses it, and the ``at``-th call fails.

    ``lasting``: all later calls fail as well, until `heal`. ``at`` 0 never fails and only counts.
    """

    def __init__(self, fault: str, at: int, *, lasting: bool = False) -> None:
        self.kind, self._error = FAULTS[fault]
        self.count = 0
        self._at = at
        self._lasting = lasting
        self._should_fail: Callable[[], bool] = lambda: False
        super().__init__("faulty", "unix", makedefault=True)

    def heal(self) -> None:
        """Let every later call succeed."""
        self._at = 0
        self._should_fail = lambda: False

    def fail_while(self, should_fail: Callable[[], bool]) -> None:
        """Ask ``should_fail`` at each call from now on."""
        self._should_fail = should_fail

    def check(self, kind: str) -> None:
        """Count a call of ``kind``, and fail if this call has to."""
        if kind != self.kind:
            return
        self.count += 1
        if self._should_fail() or (
            self._at and (self.count == self._at or (self._lasting and self.count > self._at))
        ):
            raise self._error("injected")

    def check_place(self, file: int, offset: int, amount: int) -> None:
        """Fail if this place of the file with that inode cannot be read."""

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:  # noqa: N802  # SQLite's name
        self.check("open")
        return FaultyFile(self, name, flags)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unregister()


class BadSector(FaultyDisk):
    """A disk that cannot read the page around ``place`` of the file that ``path`` is now.

    Attributes:
        struck: how often a caller tried to read the page.
        is_good: the page can be read as long as this is set.
    """

    def __init__(self, path: Path, place: int) -> None:
        self.struck = 0
        self.is_good = False
        self._file = path.stat().st_ino
        self._page = place // _PAGE_BYTES
        super().__init__("read", 0)

    def check_place(self, file: int, offset: int, amount: int) -> None:
        first, last = offset // _PAGE_BYTES, (offset + amount - 1) // _PAGE_BYTES
        if not self.is_good and file == self._file and first <= self._page <= last:
            self.struck += 1
            raise apsw.exception_for(apsw.SQLITE_IOERR_READ)


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("unix", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._file = Path(path).stat().st_ino if path else 0

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.check("read")
        self._disk.check_place(self._file, offset, amount)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.check("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.check("sync")
        super().xSync(flags)
