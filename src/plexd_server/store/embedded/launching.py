"""Starting what answers the front's questions: a process of its own, or in a test a thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from plexd_server.store.duckdb.answering import Answering

_END_SECONDS: Final = 10.0


class Started(Protocol):
    """The other end of ``connection``, which runs until that is closed."""

    connection: socket.socket

    def end(self) -> str:
        """Wait until it has ended, or end it, and return how; the connection is closed. Blocks."""
        ...


class Apart(NamedTuple):
    """How the process is started: the form of its log, and the most bytes it may use, if not 0."""

    log_format: str = "logfmt"
    most_bytes: int = 0


class TablesProcess:
    """``python -m plexd_server.store.duckdb``; killed with the thread that makes this object."""

    def __init__(self, apart: Apart) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            words = [str(theirs.fileno()), apart.log_format, str(apart.most_bytes)]
            self._process = subprocess.Popen(
                # -P: the directory it is started in has nothing to say.
                [sys.executable, "-P", "-m", "plexd_server.store.duckdb", *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def end(self) -> str:
        """Wait for it, and kill it if that takes ten seconds."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


class TablesThread:
    """The same in a thread of this process."""

    def __init__(self) -> None:
        from plexd_server.store.duckdb.answering import Answering  # noqa: PLC0415 -- loads DuckDB

        self.connection, theirs = socket.socketpair()
        self.answering: Answering = Answering(theirs)
        self._thread = threading.Thread(target=self.answering.run, name="store-tables", daemon=True)
        self._thread.start()

    def end(self) -> str:
        self._thread.join()
        return "ended"
