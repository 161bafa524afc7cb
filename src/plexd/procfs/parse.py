"""Bytes of ``/proc`` files and the fields of ``statvfs`` into numbers. Nothing here reads a file.

Formats as in the kernel's ``Documentation/filesystems/proc.rst`` and in proc(5)::

    /proc/stat      cpu  user nice system idle iowait irq softirq steal guest guest_nice
    /proc/meminfo   MemTotal:       24684092 kB
    /proc/net/dev   two lines of headings, then  "  eth0: rx_bytes ... tx_bytes ..."
    /proc/loadavg   0.64 0.17 0.10 2/87 8781

Anything else raises `ProcfsError`, which names the ``source`` given and the field: a reading is
right, or there is none. Known oddities have a fallback, of which ``note`` is called: what is odd in
one line of many does not cost the others.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from plexd.procfs.errors import ProcfsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

_UINT64_MAX = 2**64 - 1
_UINT64_DIGITS = len(str(_UINT64_MAX))

_CPU_LINE = re.compile(rb"^cpu[ \t](.*)$", re.MULTILINE)
_SINGLE_CPU_LINE = re.compile(rb"^cpu\d+[ \t](.*)$", re.MULTILINE)
_LOAD = re.compile(rb"\d{1,20}(?:\.\d{1,20})?")

_RX_COLUMN = 0
_TX_COLUMN = 8


class CpuTimes(NamedTuple):
    """Ticks spent since boot, summed over all CPUs; what an old kernel does not count is 0.

    ``guest`` and ``guest_nice`` are left out: the kernel adds a guest's ticks to ``user`` and
    ``nice`` as well (``account_guest_time`` in ``kernel/sched/cputime.c``).
    """

    user: int
    nice: int
    system: int
    idle: int
    iowait: int = 0
    irq: int = 0
    softirq: int = 0
    steal: int = 0


class Usage(NamedTuple):
    """How much of memory or disk is used, in bytes."""

    used_bytes: int
    total_bytes: int


class Interface(NamedTuple):
    """One network interface's counters since it came up. Names are bytes, any but ``/``."""

    name: bytes
    rx_bytes: int
    tx_bytes: int


def _ignore(*_noted: object) -> None:
    """Take no note."""


def parse_cpu_times(
    text: bytes, source: str = "/proc/stat", note: Callable[[str], None] = _ignore
) -> CpuTimes:
    """Return the ``cpu`` line, whose first four fields are required (Linux 2.4 had no more).

    Some containers put a line of zeros there. Then it is the next ``cpu`` line that counts
    anything, or else the sum of the lines of the single CPUs. A later field that is no count is
    taken as 0. In each case ``note`` is called with what was done.
    """
    lines = _CPU_LINE.findall(text)
    if not lines:
        raise ProcfsError(source, "no cpu line")
    chosen, instead = _counting(lines, text)
    if instead:
        note(f"the first cpu line counts nothing: {instead}")
    each = [_ticks(line, source, note) for line in chosen]
    return CpuTimes(*map(sum, zip(*each, strict=True)))


def _counting(lines: list[bytes], text: bytes) -> tuple[list[bytes], str]:
    """Return the lines to add up, and what is odd about them."""
    for line in lines:
        if _is_counting(line):
            return [line], "" if line is lines[0] else "another one is read"
    single = _SINGLE_CPU_LINE.findall(text)
    if any(map(_is_counting, single)):
        return single, "those of the single CPUs are added up"
    return lines[:1], ""


def _is_counting(line: bytes) -> bool:
    return bool(line.strip(b"0 \t\r"))


def _ticks(line: bytes, source: str, note: Callable[[str], None]) -> CpuTimes:
    fields = line.split()[: len(CpuTimes._fields)]
    required = len(CpuTimes._fields) - len(CpuTimes._field_defaults)
    if len(fields) < required:
        raise ProcfsError(source, f"cpu: no {CpuTimes._fields[len(fields)]}")
    names = CpuTimes._fields
    ticks = [_count(f, source, f"cpu: {n}") for f, n in zip(fields[:required], names, strict=False)]
    for field, name in zip(fields[required:], names[required:], strict=False):
        try:
            ticks.append(_count(field, source, name))
        except ProcfsError:
            ticks.append(0)
            note(f"{name} of the cpu line is no count: it is taken as 0")
    return CpuTimes(*ticks)


def cpu_usage_percent(earlier: CpuTimes, later: CpuTimes) -> float | None:
    """Return the busy share of the time between two samples, 0 to 100; None if unknown.

    It is unknown when no tick has passed or when a counter went back (wrapped, or a CPU was
    removed). ``iowait`` counts as idle. It alone may go back on a healthy machine, as proc(5)
    warns, and then counts as unchanged.
    """
    spent = CpuTimes(*[b - a for a, b in zip(earlier, later, strict=True)])
    spent = spent._replace(iowait=max(spent.iowait, 0))
    total = sum(spent)
    if min(spent) < 0 or total == 0:
        return None
    return 100 * (total - spent.idle - spent.iowait) / total


def parse_memory(
    text: bytes, source: str = "/proc/meminfo", note: Callable[[str], None] = _ignore
) -> Usage:
    """Return ``MemTotal`` and the part that is not ``MemAvailable`` (Linux 3.14 and later).

    Where ``MemAvailable`` is missing or cannot be true, as in some containers, it is taken as the
    sum of ``MemFree``, ``Buffers`` and ``Cached``, as older programs do, and ``note`` is called.
    One of the last two that cannot be true either is left out of the sum.
    """
    total = _meminfo_bytes(text, source, "MemTotal")
    try:
        available = _meminfo_bytes(text, source, "MemAvailable")
    except ProcfsError:
        available = total + 1
    if available > total:
        available = _reclaimable_bytes(text, source, total)
        note("no possible MemAvailable: MemFree, Buffers and Cached are added up")
    return Usage(total - available, total)


def _reclaimable_bytes(text: bytes, source: str, total: int) -> int:
    free = _meminfo_bytes(text, source, "MemFree")
    if free > total:
        raise ProcfsError(source, f"{free} bytes are free of MemTotal {total}")
    for field in ("Buffers", "Cached"):
        with suppress(ProcfsError):  # containers leave them out, or show their host's
            more = _meminfo_bytes(text, source, field)
            free += more if free + more <= total else 0
    return free


def _meminfo_bytes(text: bytes, source: str, field: str) -> int:
    line = re.search(rb"^%b:(.*)$" % field.encode(), text, re.MULTILINE)
    if line is None:
        raise ProcfsError(source, f"no {field}")
    value, _, unit = line[1].strip().partition(b" ")
    if unit != b"kB":
        raise ProcfsError(source, f"{field} is not in kB: {_excerpt(line[1])}")
    # The kernel writes kB and means KiB.
    return _bounded(_count(value, source, field) * 1024, source, field)


def parse_interfaces(
    text: bytes, source: str = "/proc/net/dev", note: Callable[[bytes, str], object] = _ignore
) -> list[Interface]:
    """Return every interface with its byte counters, in the kernel's order.

    One whose line cannot be read, or has counters that cannot be, is left out, and ``note`` is
    called with its name and the reason.
    """
    lines = text.splitlines()
    columns = lines[1].replace(b"|", b" ").split()[1:] if len(lines) > 1 else []
    if columns[_RX_COLUMN : _TX_COLUMN + 1 : _TX_COLUMN] != [b"bytes", b"bytes"]:
        raise ProcfsError(source, "no heading with rx and tx bytes where they are expected")
    found = []
    for line in filter(bytes.strip, lines[2:]):
        try:
            found.append(_interface(line, source))
        except ProcfsError as err:
            note((line.rpartition(b":")[0] or line).strip(), err.reason)
    return found


def _interface(line: bytes, source: str) -> Interface:
    # The last colon: an alias (eth0:1) has one in its name; values may follow without a space.
    name, _, values = line.rpartition(b":")
    name, fields = name.strip(), values.split()
    if not name:
        raise ProcfsError(source, "no interface name")
    if len(fields) <= _TX_COLUMN:
        raise ProcfsError(source, "no tx bytes")
    rx_bytes = _count(fields[_RX_COLUMN], source, "rx bytes")
    tx_bytes = _count(fields[_TX_COLUMN], source, "tx bytes")
    return Interface(name, rx_bytes, tx_bytes)


def total_traffic(
    interfaces: list[Interface], note: Callable[[bytes, str], object] = _ignore
) -> tuple[int, int]:
    """Return bytes received and sent over all ``interfaces`` together.

    One whose counter makes the sum larger than 64 bits is left out, and ``note`` is called.
    """
    received = sent = 0
    for one in sorted(interfaces, key=lambda one: max(one.rx_bytes, one.tx_bytes)):
        if max(received + one.rx_bytes, sent + one.tx_bytes) > _UINT64_MAX:
            note(one.name, "with its counters the sum is beyond 64 bits")
            continue
        received += one.rx_bytes
        sent += one.tx_bytes
    return received, sent


def parse_load(text: bytes, source: str = "/proc/loadavg") -> tuple[float, float, float]:
    """Load averages over 1, 5 and 15 minutes."""
    fields = text.split(maxsplit=3)[:3]
    if len(fields) < 3:
        raise ProcfsError(source, f"no three load averages: {_excerpt(text)}")
    for field in fields:
        if not _LOAD.fullmatch(field):
            raise ProcfsError(source, f"no load average: {_excerpt(field)}")
    one, five, fifteen = map(float, fields)
    return one, five, fifteen


def parse_disk(stat: os.statvfs_result, source: str) -> Usage:
    """Return how much is used of the file system mounted at ``source``.

    ``f_frsize`` is the unit POSIX gives for ``f_blocks`` and ``f_bfree``. The seed's ``Bsize`` is
    the same number on local file systems; where the two differ (FUSE, where ``f_bsize`` is the
    preferred transfer size) it would be wrong.
    """
    if stat.f_bfree > stat.f_blocks:
        raise ProcfsError(source, f"{stat.f_bfree} of {stat.f_blocks} blocks are free")
    total = _bounded(stat.f_blocks * stat.f_frsize, source, "size")
    return Usage((stat.f_blocks - stat.f_bfree) * stat.f_frsize, total)


def _count(token: bytes, source: str, field: str) -> int:
    # The length is checked first: int() of thousands of digits is slow, then refused.
    if not token.isdigit() or len(token) > _UINT64_DIGITS:
        raise ProcfsError(source, f"{field} is no count: {_excerpt(token)}")
    return _bounded(int(token), source, field)


def _bounded(value: int, source: str, field: str) -> int:
    """Return ``value`` if the wire's unsigned 64 bits hold it."""
    if value > _UINT64_MAX:
        raise ProcfsError(source, f"{field} is beyond 64 bits: {value}")
    return value


def _excerpt(token: bytes) -> str:
    """Return a file's bytes for a log: printable, and no more than a few words."""
    return repr(token[:40])[1:]
