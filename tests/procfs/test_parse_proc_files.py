"""What each ``/proc`` file may look like, and what is said of one that may not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

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
from procfs.trees import ETH0, LO, NET_HEADINGS

if TYPE_CHECKING:
    from collections.abc import Callable

UINT64_MAX = 2**64 - 1
NO_HEADING = "/proc/net/dev: no heading with rx and tx bytes where they are expected"


def test_guest_time_is_not_counted_beside_the_user_time_that_contains_it() -> None:
    earlier = parse_cpu_times(b"cpu  0 0 0 0 0 0 0 0 0 0\n")
    later = parse_cpu_times(b"cpu  30 20 0 50 0 0 0 0 30 20\n")
    assert cpu_usage_percent(earlier, later) == 50.0


def test_fields_a_future_kernel_adds_are_left_alone() -> None:
    assert parse_cpu_times(b"cpu 1 2 3 4 5 6 7 8 9 10 new\n") == CpuTimes(1, 2, 3, 4, 5, 6, 7, 8)


def test_an_old_kernel_counts_four_fields() -> None:
    assert parse_cpu_times(b"cpu  1 2 3 4\ncpu0 1 2 3 4\n") == CpuTimes(1, 2, 3, 4)


def test_the_line_of_a_single_cpu_is_not_the_sum() -> None:
    with pytest.raises(ProcfsError, match="no cpu line"):
        parse_cpu_times(b"cpu0 1 2 3 4\ncpufreq 1 2 3 4\n")


def test_waiting_for_io_is_idle_time() -> None:
    later = CpuTimes(25, 0, 0, 25, iowait=50)
    assert cpu_usage_percent(CpuTimes(0, 0, 0, 0), later) == 25.0


def test_time_stolen_by_the_hypervisor_is_busy_time() -> None:
    assert cpu_usage_percent(CpuTimes(0, 0, 0, 0), CpuTimes(0, 0, 0, 75, steal=25)) == 25.0


def test_iowait_that_goes_back_counts_as_unchanged() -> None:
    earlier, later = CpuTimes(10, 0, 0, 10, iowait=90), CpuTimes(11, 0, 0, 13, iowait=5)
    assert cpu_usage_percent(earlier, later) == 25.0


@pytest.mark.parametrize("field", sorted(set(CpuTimes._fields) - {"iowait"}))
def test_usage_is_unknown_when_any_other_counter_goes_back(field: str) -> None:
    earlier = CpuTimes(*[100] * 8)
    later = CpuTimes(*[200] * 8)._replace(**{field: 99})
    assert cpu_usage_percent(earlier, later) is None


def test_usage_is_unknown_when_no_time_has_passed() -> None:
    assert cpu_usage_percent(CpuTimes(1, 2, 3, 4), CpuTimes(1, 2, 3, 4)) is None


def test_usage_is_unknown_when_a_sample_has_fewer_fields_than_the_one_before() -> None:
    assert cpu_usage_percent(CpuTimes(1, 1, 1, 1, 1, 1, 1, 1), CpuTimes(2, 2, 2, 2)) is None


def test_meminfo_with_carriage_returns_reads_the_same() -> None:
    assert parse_memory(b"MemTotal: 9 kB\r\nMemAvailable: 4 kB\r\n") == (5 * 1024, 9 * 1024)


@pytest.mark.parametrize("available", [b"", b"MemAvailable: 5000 kB\n", b"MemAvailable: x kB\n"])
@pytest.mark.parametrize(("rest", "used"), [(b"", 900), (b"Buffers: 1 kB\nCached: 2 kB\n", 897)])
def test_without_a_possible_memavailable_it_is_free_buffers_and_cached(
    available: bytes, rest: bytes, used: int
) -> None:
    text = b"MemTotal: 1000 kB\nMemFree: 100 kB\n" + available + rest
    assert parse_memory(text) == (used * 1024, 1000 * 1024)


def test_a_cpu_line_of_zeros_gives_way_to_one_that_counts() -> None:
    zeros = b"cpu  0 0 0 0 0 0 0 0 0 0\n"
    assert parse_cpu_times(zeros + b"cpu  1 2 3 4\n") == CpuTimes(1, 2, 3, 4)


def test_beside_a_cpu_line_of_zeros_the_single_cpus_are_added_up() -> None:
    zeros, noted = b"cpu  0 0 0 0 0 0 0 0 0 0\n", list[str]()
    single = b"cpu0 1 2 3 4 0 0 0 5\ncpu1 0 0 0 0\ncpu10 10 20 30 40\nintr 9 9 9 9\n"
    assert parse_cpu_times(zeros + single, note=noted.append) == CpuTimes(11, 22, 33, 44, steal=5)
    assert noted == ["the first cpu line counts nothing: those of the single CPUs are added up"]
    assert parse_cpu_times(zeros + b"cpu0 0 0 0 0\n") == CpuTimes(0, 0, 0, 0)


def test_a_cache_that_is_larger_than_the_memory_is_left_out_of_what_is_free() -> None:
    text = b"MemTotal: 1000 kB\nMemFree: 900 kB\nBuffers: 50 kB\nCached: 5000 kB\n"
    assert parse_memory(text) == (50 * 1024, 1000 * 1024)


def test_the_largest_counters_of_an_interface_are_kept() -> None:
    line = b"eth0:%d 1 0 0 0 0 0 0 %d 1 0 0 0 0 0 0\n" % (UINT64_MAX, UINT64_MAX)
    assert parse_interfaces(NET_HEADINGS + line) == [Interface(b"eth0", UINT64_MAX, UINT64_MAX)]


@pytest.mark.parametrize("name", [b"eth0:1", b"a.b-c_d@e", b"br|lan", b"\xff\xfe", b"bytes", b"7"])
def test_an_interface_may_have_an_odd_name(name: bytes) -> None:
    line = name + b":12 1 0 0 0 0 0 0 34 1 0 0 0 0 0 0\n"
    assert parse_interfaces(NET_HEADINGS + line) == [Interface(name, 12, 34)]


def test_a_machine_without_interfaces_has_no_traffic() -> None:
    assert total_traffic(parse_interfaces(NET_HEADINGS)) == (0, 0)


ODD_LINES = {
    b"wlan0: -1 0 0 0 0 0 0 0 5 0": (b"wlan0", "rx bytes is no count: '-1'"),
    b"wlan0: 5 0 0 0 0 0 0 0 x 0": (b"wlan0", "tx bytes is no count: 'x'"),
    b"wlan0: 5 0 0 0 0 0 0 0 1.5 0": (b"wlan0", "tx bytes is no count: '1.5'"),
    b"wlan0: %d 0 0 0 0 0 0 0 5" % 2**64: (b"wlan0", f"rx bytes is beyond 64 bits: {2**64}"),
    b"wlan0: 1 2 3": (b"wlan0", "no tx bytes"),
    b"wlan0:": (b"wlan0", "no tx bytes"),
    b"wlan0 1 0 0 0 0 0 0 0 5": (b"wlan0 1 0 0 0 0 0 0 0 5", "no interface name"),
    b": 1 0 0 0 0 0 0 0 5": (b": 1 0 0 0 0 0 0 0 5", "no interface name"),
}


@pytest.mark.parametrize("line", ODD_LINES)
def test_an_interface_that_makes_no_sense_costs_itself_only(line: bytes) -> None:
    noted: list[tuple[bytes, str]] = []
    text = NET_HEADINGS + LO + line + b"\n" + ETH0
    found = parse_interfaces(text, note=lambda *about: noted.append(about))
    assert found == [Interface(b"lo", 900, 900), Interface(b"eth0", 100, 200)]
    assert noted == [ODD_LINES[line]]


def test_an_empty_line_is_no_interface() -> None:
    noted: list[tuple[bytes, str]] = []
    text = NET_HEADINGS + b"\n" + ETH0 + b" \n"
    assert len(parse_interfaces(text, note=lambda *about: noted.append(about))) == 1
    assert noted == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_counter_that_no_sum_can_hold_costs_its_interface_only(place: int) -> None:
    """It is what a counter below zero looks like where it is printed as an unsigned number."""
    interfaces = [Interface(b"a", 1, 2), Interface(b"b", 10, 20)]
    interfaces.insert(place, Interface(b"odd", 1, UINT64_MAX))
    noted: list[tuple[bytes, str]] = []
    assert total_traffic(interfaces, lambda *about: noted.append(about)) == (11, 22)
    assert noted == [(b"odd", "with its counters the sum is beyond 64 bits")]


@pytest.mark.parametrize("text", [b"-1", b"x", b"%d" % 2**64])
def test_a_later_field_of_the_cpu_line_that_is_no_count_is_nothing(text: bytes) -> None:
    noted: list[str] = []
    times = parse_cpu_times(b"cpu  1 2 3 4 5 6 7 " + text + b" 0 0\n", note=noted.append)
    assert times == CpuTimes(1, 2, 3, 4, 5, 6, 7, steal=0)
    assert noted == ["steal of the cpu line is no count: it is taken as 0"]


def test_the_fragment_size_is_the_unit_of_blocks() -> None:
    stat = os.statvfs_result((1 << 20, 512, 100, 40, 30, 1, 1, 1, 0, 255))
    assert parse_disk(stat, "/mnt") == (60 * 512, 100 * 512)


@pytest.mark.parametrize(
    ("blocks", "free", "reason"),
    [(10, 11, "/mnt: 11 of 10 blocks are free"), (2**60, 0, "/mnt: size is beyond 64 bits")],
)
def test_an_impossible_file_system_is_refused(blocks: int, free: int, reason: str) -> None:
    stat = os.statvfs_result((4096, 4096, blocks, free, free, 1, 1, 1, 0, 255))
    with pytest.raises(ProcfsError, match=reason):
        parse_disk(stat, "/mnt")


GARBLED: list[tuple[Callable[[bytes], object], bytes, str]] = [
    (parse_cpu_times, b"", "/proc/stat: no cpu line"),
    (parse_cpu_times, b"cpu\n", "/proc/stat: no cpu line"),
    (parse_cpu_times, b"cpu  1 2 3\n", "/proc/stat: cpu: no idle"),
    (parse_cpu_times, b"cpu  1 -2 3 4\n", "/proc/stat: cpu: nice is no count: '-2'"),
    (parse_cpu_times, b"cpu  1 2 3 %d\n" % 2**64,
     f"/proc/stat: cpu: idle is beyond 64 bits: {2**64}"),
    (parse_memory, b"", "/proc/meminfo: no MemTotal"),
    (parse_memory, b"MemTotal: 1 kB\n", "/proc/meminfo: no MemFree"),
    (parse_memory, b" MemTotal: 1 kB\nMemAvailable: 1 kB\n", "/proc/meminfo: no MemTotal"),
    (parse_memory, b"MemTotal: 1 MB\n", "/proc/meminfo: MemTotal is not in kB: ' 1 MB'"),
    (parse_memory, b"MemTotal: 1\n", "/proc/meminfo: MemTotal is not in kB: ' 1'"),
    (parse_memory, b"MemTotal: 0x1 kB\n", "/proc/meminfo: MemTotal is no count: '0x1'"),
    (parse_memory, b"MemTotal: %d kB\n" % 2**63,
     f"/proc/meminfo: MemTotal is beyond 64 bits: {2**73}"),
    (parse_memory, b"MemTotal: 1 kB\nMemFree: 2 kB\n",
     "/proc/meminfo: 2048 bytes are free of MemTotal 1024"),
    (parse_interfaces, b"", NO_HEADING),
    (parse_interfaces, ETH0 + ETH0, NO_HEADING),
    (parse_load, b"", "/proc/loadavg: no three load averages: ''"),
    (parse_load, b"0.1 0.2", "/proc/loadavg: no three load averages: '0.1 0.2'"),
    (parse_load, b"0.1 nan 0.3 1/2 3", "/proc/loadavg: no load average: 'nan'"),
    (parse_load, b"0.1 0.2 inf 1/2 3", "/proc/loadavg: no load average: 'inf'"),
    (parse_load, b"-0.1 0.2 0.3 1/2 3", "/proc/loadavg: no load average: '-0.1'"),
    (parse_load, b"1e999 0.2 0.3 1/2 3", "/proc/loadavg: no load average: '1e999'"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "text", "message"), GARBLED)
def test_a_garbled_file_is_named_with_the_field_at_fault(
    parse: Callable[[bytes], object], text: bytes, message: str
) -> None:
    with pytest.raises(ProcfsError) as failure:
        parse(text)
    assert str(failure.value) == message


def test_a_huge_number_is_refused_without_being_shown_whole() -> None:
    with pytest.raises(ProcfsError) as failure:
        parse_cpu_times(b"cpu 1 2 3 " + b"9" * 1_000_000)
    assert len(str(failure.value)) < 100
