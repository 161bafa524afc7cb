"""Faults at the n-th call of the kernel, injected by strace into a process that is held still.

strace counts the calls of each thread apart: a fault at the n-th call strikes whichever thread
gets there first, unless only the one that it was attached to is looked at.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Fault", "injected"]

_PATIENCE_SECONDS = 20.0
# What strace writes at the end of a line that it meddled with.
_STRUCK = ("(INJECTED)", "(DELAYED)", "+++ killed by SIGKILL")


class Fault(NamedTuple):
    """``effect`` (``signal=KILL``, ``error=EIO``, …) at calls ``when`` (``3``, ``3+``) of ``call``.

    ``call`` may name several, with commas in between. Calls of threads that start later count
    only if it ``follows`` them.
    """

    call: str
    effect: str
    when: str
    follows: bool = True

    def __str__(self) -> str:
        return f"{self.call}:{self.effect}:when={self.when}"


class injected:  # noqa: N801  # reads as a verb where it is used
    """A context manager that attaches to ``pid``, which is stopped, and lets it go on.

    Leave it once the process has ended, or if the fault ``lasts`` when it is to be over; then
    ``struck`` says whether there was a call for it to strike.
    """

    def __init__(self, fault: Fault, pid: int, *, lasts: bool = False) -> None:
        self.struck = False
        self._lasts = lasts
        self._fault = fault
        self._pid = pid
        self._seen = tempfile.NamedTemporaryFile(prefix="plexd-strace-")  # noqa: SIM115  # closed in exit
        self._tracer = subprocess.Popen(self._command(), stderr=subprocess.PIPE, text=True)

    def _command(self) -> list[str]:
        strace = shutil.which("strace")
        assert strace is not None, "not installed: strace"
        trace, inject = f"trace={self._fault.call}", f"inject={self._fault}"
        to = ["-qqq", "-o", self._seen.name, "-p", str(self._pid)]
        follow = ["-f"] if self._fault.follows else []
        return [strace, *follow, *to, "-e", trace, "-e", inject]

    def __enter__(self) -> Self:
        _wait_for_tracer(self._pid, self._tracer)
        os.kill(self._pid, signal.SIGCONT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._lasts or kind is not None:
                self._tracer.terminate()  # which detaches
            self._tracer.wait(_PATIENCE_SECONDS)
        finally:
            self._tracer.kill()
            self._tracer.communicate()
            seen = Path(self._seen.name).read_text(errors="replace")
            self.struck = any(mark in seen for mark in _STRUCK)
            self._seen.close()


def _wait_for_tracer(pid: int, tracer: subprocess.Popen[str]) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        assert tracer.poll() is None, tracer.communicate()[1]
        assert time.monotonic() < give_up, "strace did not attach"
        time.sleep(0.001)
