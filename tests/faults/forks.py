"""Starting one program thousands of times: it is imported once, and forked for every run.

SIGKILL ends a forked process as it ends any other, and a start takes 10 ms in place of 400.

`Forks` talks to a process that runs this module, one line an order and one line an answer:

    start {"argument": …, "output": …, "held": …}   ->  the process id
    wait PID                                       ->  its status, as waitpid's

The process has no threads, so that forking it is safe; whatever it still has when its input ends
is killed by id, and each child dies with it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from faults.apart import python_path

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Forks", "Started"]

_PATIENCE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


class _Order(msgspec.Struct):
    argument: str
    output: str
    held: bool


class Started(NamedTuple):
    """A child that was started and is to be waited for."""

    forks: Forks
    pid: int

    def kill(self) -> int:
        """SIGKILL; its wait status."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self, name: str) -> str:
        """``/proc/PID/name``."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def is_alive(self) -> bool:
        """Whether it has not ended yet; one that has stays readable until it is waited for."""
        return self.status("stat").rpartition(")")[2].split()[0] not in "ZX"

    def wait(self, seconds: float = _PATIENCE_SECONDS) -> int:
        """Its exit status, negative for a signal. Killed if it takes longer than ``seconds``."""
        return self.forks.wait(self.pid, seconds)


class Forks:
    """Runs of ``module``'s ``main(argument: str) -> int``; a context manager."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.forks", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": python_path()},
            text=True,
            bufsize=1,
        )

    def start(self, argument: msgspec.Struct, output: Path, *, held: bool = False) -> Started:
        """Start a run; a ``held`` one stops itself first and waits for SIGCONT.

        What it prints is appended to ``output``.
        """
        order = _Order(msgspec.json.encode(argument).decode(), str(output), held)
        pid = int(self._ask(f"start {msgspec.json.encode(order).decode()}"))
        started = Started(self, pid)
        if held:
            _wait_for_stop(started)
        return started

    def wait(self, pid: int, seconds: float) -> int:
        self._tell(f"wait {pid}")
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            self._hear()
            raise TimeoutError(f"process {pid} was still running after {seconds:g} s")
        return os.waitstatus_to_exitcode(int(self._hear()))

    def _ask(self, line: str) -> str:
        self._tell(line)
        return self._hear()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process has ended"
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE_SECONDS)
        self._process.stdout.close()


def _wait_for_stop(started: Started) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while started.status("stat").rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < give_up
        time.sleep(0.001)


def _serve(module: str) -> None:
    # Whoever runs the tests may have had it ignored, as nohup(1) does, and an agent goes by that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    main = importlib.import_module(module).main
    children: set[int] = set()
    try:
        for line in sys.stdin:
            word, _, rest = line.partition(" ")
            if word == "start":
                pid = os.fork()
                if pid == 0:
                    _child(main, msgspec.json.decode(rest, type=_Order))
                children.add(pid)
                _say(pid)
            else:
                pid, status = os.waitpid(int(rest), 0)
                children.discard(pid)
                _say(status)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _child(main: object, order: _Order) -> None:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(order.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order.held:
            os.kill(os.getpid(), signal.SIGSTOP)
        assert callable(main)
        status = main(order.argument)
    except BaseException:  # noqa: BLE001  # nothing of the parent may run on in the child
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
