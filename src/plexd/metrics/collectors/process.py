"""This process's memory and its garbage collector."""

from __future__ import annotations

import functools
import gc
import time
from pathlib import Path

from msgspec import Struct

_STATUS = Path("/proc/self/status")
_COUNTS = {b"RssAnon", b"VmRSS", b"VmData", b"VmSize"}


class Memory(Struct, frozen=True):
    """Resident anonymous memory and the mapped data segment, in bytes."""

    anonymous_bytes: int
    data_bytes: int


def read_memory(status: Path = _STATUS) -> Memory:
    """This process's memory now. Raises `OSError` or `ValueError` naming the file."""
    try:
        return parse_status(status.read_bytes())
    except ValueError as err:
        raise ValueError(f"{status}: {err}") from None


def parse_status(text: bytes) -> Memory:
    """``RssAnon`` and ``VmData`` of ``/proc/[pid]/status`` (proc(5)); `ValueError` without.

    Kernels before Linux 4.5 and some sandboxes have no ``RssAnon``, or no ``VmData``: there it is
    ``VmRSS`` and ``VmSize``, which count a little more.
    """
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        number, _, unit = value.strip().partition(b" ")
        if name in _COUNTS and unit == b"kB" and number.isdigit():
            found[name] = int(number) * 1024
    anonymous = found.get(b"RssAnon", found.get(b"VmRSS"))
    data = found.get(b"VmData", found.get(b"VmSize"))
    if anonymous is None or data is None:
        raise ValueError("no RssAnon or no VmData in kB")
    return Memory(anonymous_bytes=anonymous, data_bytes=data)


class GarbageCollectorWatch:
    """The number of garbage collections and the time they took, counted since the watch began."""

    def __init__(self) -> None:
        self.collections = 0
        self.pause_total_ns = 0
        self._began = 0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        """Count, as a callback of `gc.callbacks`."""
        if phase == "start":
            self._began = time.perf_counter_ns()
        elif self._began:
            self.collections += 1
            self.pause_total_ns += time.perf_counter_ns() - self._began


@functools.cache
def watch_garbage_collector() -> GarbageCollectorWatch:
    """The process's only watch, begun with the first call: a second would measure the first."""
    watch = GarbageCollectorWatch()
    gc.callbacks.append(watch)
    return watch
