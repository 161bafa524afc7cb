"""The machine's numbers, read from ``/proc`` and one mount point (seed, "LinuxSystemReader").

====================  =================  ==========================================
field                 source             method
====================  =================  ==========================================
cpu_usage_percent     /proc/stat         two samples 100 ms apart, busy / total
memory_*_bytes        /proc/meminfo      MemTotal - MemAvailable, MemTotal (see `parse_memory`)
disk_*_bytes          statvfs            (blocks - bfree) x frsize, blocks x frsize
network_*_bytes       /proc/net/dev      fields 0 and 8, summed (`LinuxSystemReader`: another root)
load_avg_*            /proc/loadavg      first three fields
====================  =================  ==========================================
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from plexd.api import SystemStats
from plexd.clock import Clock, SystemClock
from plexd.procfs.errors import ProcfsError
from plexd.procfs.interface_names import primary_name
from plexd.procfs.mount_point import MountPoint
from plexd.procfs.parse import (
    Interface,
    Usage,
    cpu_usage_percent,
    parse_cpu_times,
    parse_interfaces,
    parse_load,
    parse_memory,
    total_traffic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    T = TypeVar("T")

_SAMPLE_SECONDS: Final = 0.1
# A counter that wrapped or a CPU that was removed costs one sample; on a machine that needs more
# than five the counters do not work.
_SAMPLES: Final = 5


class LinuxSystemReader:
    """Reads CPU, memory, disk, network and load of this machine.

    ``mount_point`` is the file system whose usage is reported, ``/`` if it is empty.
    ``net_iface`` is the one interface to count, by any of its names, empty for all but ``lo``; a
    named one that is missing counts zero and is logged once each time it goes missing. One whose
    counters cannot be is logged in the same way, and left out. ``proc_root`` is where ``/proc`` is
    mounted, so that a container can be given its host's. The network is then that of the first
    process there, as ``net`` leads to the network of whoever reads it; alternative names are not
    known there.

    `SystemStats` has no optional fields and a zero would be a lie, so one source that is missing
    or garbled, and has no known fallback, fails the whole reading; the next reading is not
    affected. Use from one event loop at a time. There is nothing to close.
    """

    def __init__(
        self,
        mount_point: str | os.PathLike[str] = "/",
        net_iface: str = "",
        *,
        proc_root: str | os.PathLike[str] = "/proc",
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger(__name__)
        self._proc_root = Path(proc_root)
        # Not followed: /proc/1/root leads to another root, and reads as "/".
        self._is_own_root = os.path.normpath(proc_root) == "/proc"
        self._net_iface = net_iface
        self._iface_missing = False
        self._left_out: frozenset[bytes] = frozenset()
        self._noted: set[str] = set()
        self._mount = MountPoint(os.fspath(mount_point) or "/", clock=self._clock, statvfs=statvfs)

    async def read_stats(self) -> SystemStats:
        """Return one reading of everything, in 100 ms unless the disk needs longer (at most 2 s).

        Raises `ProcfsError` when any source cannot be read or trusted. May be cancelled at any
        time.
        """
        memory = self._parsed("meminfo", partial(parse_memory, note=self._note))
        load = self._parsed("loadavg", parse_load)
        received, sent = self._read_traffic()
        cpu_percent, disk = await self._read_cpu_and_disk()
        return SystemStats(cpu_percent, *memory, *disk, received, sent, *load)

    async def _read_cpu_and_disk(self) -> tuple[float, Usage]:
        try:
            async with asyncio.TaskGroup() as group:
                disk = group.create_task(self._mount.read_usage())
                cpu = group.create_task(self._read_cpu_percent())
        except ExceptionGroup as failures:
            # One source is enough to fail the reading; the group itself does not matter.
            error = failures.exceptions[0]
            raise error from error.__cause__
        return cpu.result(), disk.result()

    async def _read_cpu_percent(self) -> float:
        parse = partial(parse_cpu_times, note=self._note)
        earlier = self._parsed("stat", parse)
        for _ in range(_SAMPLES):
            await self._clock.sleep(_SAMPLE_SECONDS)
            later = self._parsed("stat", parse)
            percent = cpu_usage_percent(earlier, later)
            if percent is not None:
                return percent
            earlier = later
        reason = f"the cpu counters stood still or went back in {_SAMPLES} samples"
        raise ProcfsError(self._path("stat"), reason)

    def _read_traffic(self) -> tuple[int, int]:
        odd: dict[bytes, str] = {}
        parse = partial(parse_interfaces, note=odd.setdefault)
        chosen = self._chosen(self._parsed(self._network_file(), parse), odd)
        traffic = total_traffic(chosen, odd.setdefault)
        self._note_left_out(odd)
        return traffic

    def _network_file(self) -> str:
        if self._is_own_root:
            return "net/dev"
        root = self._proc_root
        is_procfs = (root / "net").is_symlink() or (root / "1").exists()
        return "1/net/dev" if is_procfs else "net/dev"  # a recorded tree has no processes

    def _chosen(self, interfaces: list[Interface], odd: Container[bytes]) -> list[Interface]:
        if not self._net_iface:
            return [i for i in interfaces if i.name != b"lo"]
        name = os.fsencode(self._net_iface)
        names = {i.name: i for i in interfaces}
        if name not in names and name not in odd and self._is_own_root:
            name = primary_name(name)
        self._note_missing(missing=name not in names and name not in odd)
        return [names[name]] if name in names else []

    def _note(self, fallback: str) -> None:
        if fallback not in self._noted:
            self._noted.add(fallback)
            extra = {"component": "procfs", "reason": fallback}
            self._logger.warning("source read another way", extra=extra)

    def _note_left_out(self, odd: Mapping[bytes, str]) -> None:
        new = [name for name in odd if name not in self._left_out]
        if new:
            extra = {
                "component": "procfs",
                "interface": os.fsdecode(new[0]),
                "count": len(odd),
                "error": odd[new[0]],
            }
            self._logger.warning("network interface left out", extra=extra)
        self._left_out = frozenset(odd)

    def _note_missing(self, *, missing: bool) -> None:
        if missing and not self._iface_missing:
            extra = {"component": "procfs", "interface": self._net_iface}
            self._logger.warning("network interface missing", extra=extra)
        self._iface_missing = missing

    def _parsed(self, name: str, parse: Callable[[bytes, str], T]) -> T:
        # Not in a thread: the kernel answers from memory, faster than a thread is switched.
        try:
            text = (self._proc_root / name).read_bytes()
        except OSError as err:
            raise ProcfsError(self._path(name), err.strerror or str(err)) from err
        return parse(text, self._path(name))

    def _path(self, name: str) -> str:
        return str(self._proc_root / name)
