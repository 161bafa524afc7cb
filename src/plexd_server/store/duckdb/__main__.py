"""The tables' process: ``python -m plexd_server.store.duckdb DESCRIPTOR LOG_FORMAT BYTES``.

Only the front starts it (`plexd_server.store.embedded.launching`). It ends with the other end of
the socket, and with the front at the latest. It is the first to go when the machine is short of
something: what it has comes again from the journal.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from plexd.logs import setup_logging
from plexd_server.store.duckdb.answering import Answering

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_NICER: Final = 5
_SOONER_KILLED: Final = "300"  # of 1000, proc(5)
_SELDOM: Final = (50_000, 20, 50)  # nothing here is made in cycles


def main(descriptor: str, log_format: str, most_bytes: str) -> None:
    """Answer the front until it is gone, with at most so many bytes of memory of its own."""
    _depend_on_parent()
    _step_back()
    resource.setrlimit(resource.RLIMIT_DATA, (int(most_bytes), int(most_bytes)))
    setup_logging("warning", log_format, {"plexd_server": "info"}, tracebacks=True)
    gc.freeze()
    atexit.register(gc.unfreeze)  # DuckDB complains of what is never collected
    gc.set_threshold(*_SELDOM)
    Answering(socket.socket(fileno=int(descriptor))).run()


def _depend_on_parent() -> None:
    """Be killed with the thread of the front that started this process; the socket ends as well."""
    # The front decides when to stop, also if a terminal or a service manager signals both.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _step_back() -> None:
    with suppress(OSError):
        os.nice(_NICER)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_SOONER_KILLED, encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
