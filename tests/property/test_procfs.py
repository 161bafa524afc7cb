"""Any content of ``/proc`` gives the right numbers or one kind of error."""

from __future__ import annotations

import os
from operator import add
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plexd.procfs import ProcfsError
from plexd.procfs.parse import (
    CpuTimes,
    Interface,
    cpu_usage_percent,
    parse_cpu_times,
    parse_disk,
    parse_interfaces,
    parse_load,
    parse_memory,
    total_traffic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PARSERS = [parse_cpu_times, parse_memory, parse_interfaces, parse_load]
HEADINGS = b"Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n"  # noqa: E501  # the kernel's

uint64 = st.integers(0, 2**64 - 1)
ticks = st.builds(CpuTimes, *[st.integers(0, 2**63)] * 8)
kib = st.integers(0, 2**54 - 1)
names = st.binary(min_size=1, max_size=15).filter(
    lambda name: not set(name) & set(b"/:") and name.split() == [name]
)
interfaces = st.builds(Interface, names, uint64, uint64)
load = st.decimals(0, 10**6, places=2)

# Bytes made of what these files are made of get further than bytes at random.
PIECES = [b"cpu", b"MemTotal:", b"MemAvailable:", b" kB", b"eth0", b":", b"|", b"\n", b" ", b"."]
DIGITS = [b"0", b"1", b"9" * 19, b"9" * 20, b"-1", b"nan", b"inf", b"1e9", b"1_0", "٣".encode()]
almost = st.lists(st.sampled_from(PIECES + DIGITS) | st.binary(max_size=3)).map(b"".join)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.binary() | almost | almost.map(HEADINGS.__add__))
@example(text=b"9" * 5000)
@example(text=b"cpu " + b"9" * 5000 + b" 1 1 1")
def test_bytes_of_any_kind_end_in_a_value_or_in_a_procfs_error(
    parse: Callable[[bytes], object], text: bytes
) -> None:
    said = "/proc/"
    try:
        parse(text)
    except ProcfsError as err:
        said = str(err)
    assert said.startswith("/proc/")
    assert said.isprintable()


@given(times=ticks, guest=st.lists(uint64, max_size=2), kept=st.integers(4, 8))
def test_cpu_times_read_as_written(times: CpuTimes, guest: list[int], kept: int) -> None:
    fields = [*times, *guest] if kept == 8 else times[:kept]
    line = "cpu  " + " ".join(map(str, fields)) + "\ncpu0 1 1 1 1\nctxt 5\n"
    expected = CpuTimes(*times[:kept]) if any(fields) else CpuTimes(1, 1, 1, 1)
    assert parse_cpu_times(line.encode()) == expected


@given(earlier=ticks, spent=st.tuples(*[st.integers(-2, 2**40)] * 8))
def test_cpu_usage_is_a_percentage_unless_a_counter_went_back(
    earlier: CpuTimes, spent: tuple[int, ...]
) -> None:
    passed = CpuTimes(*spent)._replace(iowait=max(CpuTimes(*spent).iowait, 0))
    percent = cpu_usage_percent(earlier, CpuTimes(*map(add, earlier, spent)))
    assert (percent is None) == (min(passed) < 0 or sum(passed) == 0)
    assert percent is None or 0 <= percent <= 100


@given(earlier=ticks, busy=st.integers(0, 10**9), idle=st.integers(0, 10**9))
def test_cpu_usage_is_the_share_of_busy_ticks(earlier: CpuTimes, busy: int, idle: int) -> None:
    later = earlier._replace(system=earlier.system + busy, idle=earlier.idle + idle)
    expected = None if busy + idle == 0 else pytest.approx(100 * busy / (busy + idle))
    assert cpu_usage_percent(earlier, later) == expected


@given(values=st.tuples(kib, kib).map(sorted), others=st.lists(kib, max_size=3))
def test_memory_reads_as_written(values: list[int], others: list[int]) -> None:
    available, total = values
    lines = [f"MemTotal: {total:8} kB", *[f"Other{i}: {o} kB" for i, o in enumerate(others)]]
    text = "\n".join([*lines, f"MemAvailable:   {available} kB", ""]).encode()
    assert parse_memory(text) == ((total - available) * 1024, total * 1024)


@given(expected=st.lists(interfaces, max_size=20), glue=st.sampled_from([b"", b" ", b"      "]))
def test_interfaces_read_as_written(expected: list[Interface], glue: bytes) -> None:
    lines = [
        b"%6b:%b%d 1 0 0 0 0 0 0 %d 2 0 0 0 0 0 0\n" % (i.name, glue, i.rx_bytes, i.tx_bytes)
        for i in expected
    ]
    assert parse_interfaces(HEADINGS + b"".join(lines)) == expected


@given(counted=st.lists(interfaces, max_size=20))
def test_traffic_is_the_sum_of_all_but_those_that_are_noted(counted: list[Interface]) -> None:
    noted: list[bytes] = []
    total = total_traffic(counted, lambda name, _: noted.append(name))
    assert max(total) < 2**64
    if not noted:
        assert total == (sum(i.rx_bytes for i in counted), sum(i.tx_bytes for i in counted))
    else:
        assert max(sum(i.rx_bytes for i in counted), sum(i.tx_bytes for i in counted)) >= 2**64


@given(values=st.tuples(load, load, load), rest=st.sampled_from(["", " 1/2 3\n", "\n"]))
def test_load_averages_read_as_written(values: tuple[object, ...], rest: str) -> None:
    text = " ".join(map(str, values)) + rest
    assert parse_load(text.encode()) == tuple(float(str(v)) for v in values)


@given(fields=st.tuples(uint64, uint64, uint64, uint64))
def test_disk_usage_fits_the_disk_or_is_refused(fields: tuple[int, int, int, int]) -> None:
    bsize, frsize, blocks, bfree = fields
    stat = os.statvfs_result((bsize, frsize, blocks, bfree, bfree, 0, 0, 0, 0, 255))
    try:
        used, total = parse_disk(stat, "/mnt")
    except ProcfsError:
        assert bfree > blocks or blocks * frsize >= 2**64
    else:
        assert 0 <= used <= total == blocks * frsize < 2**64
