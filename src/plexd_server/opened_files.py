"""The files that the server has open, and whether a later start would find the same ones.

A file that is moved, deleted or replaced stays open: it can be written to for ever, and nobody sees
that again. So its name is looked up before anything is acknowledged.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from plexd.clock import SystemClock
from plexd_server.errors import FilesReplaced
from plexd_server.fault_log import FaultLog

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.clock import Clock

    Identity = tuple[int, int]

_NO_FILE: Final = (0, 0)


class OpenedFiles:
    """Files that have to stay where they were when they were opened.

    A look costs a microsecond or two a file. What was refused works again as soon as the file is
    put back. Used from several threads.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._faults = FaultLog("files", clock or SystemClock())
        self._known: dict[Path, Identity] = {}
        self._lock = threading.Lock()  # an older look must not undo what a newer one found

    def add(self, path: Path) -> None:
        """Remember which file is behind a name, just after it was opened."""
        self._known[path] = identity(path)

    def check(self) -> None:
        """Raise `FilesReplaced` if another file, or none, is behind a name; that is logged."""
        with self._lock:
            for path, known in list(self._known.items()):
                if identity(path) != known:
                    err = replaced(path)
                    self._faults.failed(err)
                    raise FilesReplaced("the server's files are not in their place") from err
            self._faults.worked()


def identity(path: Path) -> Identity:
    """Return which file is behind a name; a link leads to its target."""
    try:
        found = path.stat()
    except OSError:
        return _NO_FILE
    return found.st_dev, found.st_ino


def replaced(path: Path) -> OSError:
    """Return the error that says what to do."""
    return OSError(
        f"{path} was moved, deleted or replaced; put it back, or restart the server to go on with "
        "what is there now"
    )
