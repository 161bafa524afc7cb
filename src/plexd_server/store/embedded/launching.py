"""Starting what answers the front's questions: a process of its own, or in a test a thread."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from plexd_server.errors import StartError

if TYPE_CHECKING:
    from plexd_server.store.duckdb.answering import Answering

_END_SECONDS: Final = 10.0
# What is not DuckDB's: the interpreter, numpy, a chunk on its way, and stacks of threads.
_LIMITS: Final = 4
_LIMIT_BYTES: Final = 512 * 1024 * 1024


class Started(Protocol):
    """The other end of ``connection``, which runs until that is closed."""

    connection: socket.socket

    def end(self) -> str:
        """Wait until it has ended, or end it, and return how; the connection is closed. Blocks."""
        ...


class Apart(NamedTuple):
    """How the process is started: the form of its log, and DuckDB's limit, such as ``256MB``."""

    log_format: str = "logfmt"
    memory: str = "256MB"

    def words(self) -> list[str]:
        """Return the arguments that say so; of memory, it may use a multiple of DuckDB's limit."""
        return [self.log_format, str(_LIMITS * _size(self.memory) + _LIMIT_BYTES)]


def _size(text: str) -> int:
    found = re.fullmatch(r"([\d.]+) ?([KMGT])(I?)B", text.upper())
    if found is None:
        raise StartError(f"--store-memory {text!r} is not a size such as 256MB")
    unit = (1024 if found[3] else 1000) ** (1 + "KMGT".index(found[2]))
    return int(float(found[1]) * unit)


class TablesProcess:
    """``python -m plexd_server.store.duckdb``; killed with the thread that makes this object."""

    def __init__(self, apart: Apart) -> None:
        words = apart.words()
        self.connection, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _start([str(theirs.fileno()), *words], theirs.fileno())
            except BaseException:
                self.connection.close()
                raise

    def end(self) -> str:
        """Wait for it, and kill it if that takes ten seconds."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _start(words: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 -- our own program
        # -P: the directory it is started in has nothing to say.
        [sys.executable, "-P", "-m", "plexd_server.store.duckdb", *words],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


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
