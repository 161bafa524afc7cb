"""Trees that look like ``/proc``, a clock that turns itself, and a mount point that hangs."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.metrics.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "golden" / "proc"

NET_HEADINGS = b"Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n"  # noqa: E501  # the kernel's
LO = b"    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n"
ETH0 = b"  eth0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n"

FILES = {
    "stat": b"cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0 0 0\n",
    "meminfo": b"MemTotal:       1000 kB\nMemFree:      1 kB\nMemAvailable:     400 kB\n",
    "loadavg": b"0.50 0.25 0.12 1/100 4242\n",
    "net/dev": NET_HEADINGS + LO + ETH0,
}
STAT_LATER = b"cpu  110 0 110 880 0 0 0 0 0 0\n"
STATVFS = os.statvfs_result((65536, 4096, 1000, 250, 200, 10, 5, 5, 0, 255))


class ProcTree:
    """A ``/proc`` in a folder, whose ``stat`` moves on each time the reader sleeps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._samples: list[bytes] = [STAT_LATER]
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)

    def write_stat(self, first: bytes, *later: bytes) -> None:
        """``first``, then one of ``later`` after each pause; the last one stays."""
        self.write("stat", first)
        self._samples = list(later)

    def step(self) -> None:
        if self._samples:
            self.write("stat", self._samples.pop(0))


class SteppingClock(ManualClock):
    """A `ManualClock` on which sleeps pass at once; deadlines pass when the test says so."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sleeps: list[float] = []
        self._on_sleep = on_sleep

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0)
        self._on_sleep()


class HangingStatvfs:
    """A ``statvfs`` that returns only while the mount is healthy."""

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self._healthy = threading.Event()

    def __call__(self, _path: str) -> os.statvfs_result:
        self.calls += 1
        self.entered.set()
        self._healthy.wait()
        return STATVFS

    def heal(self) -> None:
        self._healthy.set()

    def break_again(self) -> None:
        self._healthy.clear()
        self.entered.clear()


async def until(*conditions: Callable[[], bool]) -> None:
    """Let the loop turn until every condition holds."""
    while not all(c() for c in conditions):  # noqa: ASYNC110  # other threads make them true
        await asyncio.sleep(0)


def statvfs_threads() -> int:
    return sum(thread.name == "plexd-statvfs" for thread in threading.enumerate())
