"""`LinuxSystemReader` over recorded trees, over this machine, and over sources that fail."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from plexd.procfs import LinuxSystemReader, ProcfsError
from procfs.trees import (
    ETH0,
    GOLDEN,
    LO,
    NET_HEADINGS,
    STATVFS,
    ProcTree,
    SteppingClock,
)

if TYPE_CHECKING:
    from plexd.api import SystemStats

TREES = sorted(path.name for path in GOLDEN.iterdir())


def reader_of(tree: ProcTree, clock: SteppingClock, **options: Any) -> LinuxSystemReader:
    options = {"statvfs": lambda _: STATVFS} | options
    return LinuxSystemReader(proc_root=tree.root, clock=clock, **options)


def fields_of(stats: SystemStats) -> dict[str, float]:
    return {name: getattr(stats, name) for name in stats.__struct_fields__}


@pytest.mark.parametrize("name", TREES)
async def test_a_recorded_tree_reads_as_worked_out_by_hand(
    name: str, tree: ProcTree, clock: SteppingClock
) -> None:
    golden = GOLDEN / name
    expected = json.loads((golden / "expected.json").read_text())
    for file in ("meminfo", "loadavg", "net/dev"):
        tree.write(file, (golden / file).read_bytes())
    tree.write_stat((golden / "stat").read_bytes(), (golden / "stat.later").read_bytes())
    reader = reader_of(tree, clock)
    if "error" in expected:
        with pytest.raises(ProcfsError) as failure:
            await reader.read_stats()
        assert str(failure.value) == f"{tree.root}{expected['error']}"
        return
    disk = {"disk_used_bytes": 750 * 4096, "disk_total_bytes": 1000 * 4096}
    assert fields_of(await reader.read_stats()) == expected | disk


def memory_total_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) * 1024


def received_bytes() -> int:
    """What the interfaces count in sysfs, another way to the same counters."""
    counters = Path("/sys/class/net").glob("*/statistics/rx_bytes")
    return sum(int(c.read_text()) for c in counters if c.parts[-3] != "lo")


async def test_this_machine_reads_as_the_system_calls_say() -> None:
    stats = await LinuxSystemReader().read_stats()
    disk = os.statvfs("/")
    assert stats.disk_total_bytes == disk.f_blocks * disk.f_frsize
    assert 0 < stats.disk_used_bytes <= stats.disk_total_bytes
    assert stats.memory_total_bytes == memory_total_bytes()
    assert 0 < stats.memory_used_bytes < stats.memory_total_bytes
    assert 0 <= stats.cpu_usage_percent <= 100
    assert min(stats.load_avg_1, stats.load_avg_5, stats.load_avg_15) >= 0


@pytest.mark.skipif(not Path("/sys/class/net").exists(), reason="needs sysfs")
async def test_the_interfaces_of_this_machine_add_up() -> None:
    before = received_bytes()
    stats = await LinuxSystemReader().read_stats()
    assert before <= stats.network_rx_bytes <= received_bytes()


async def test_the_cpu_is_sampled_twice_a_tenth_of_a_second_apart(
    tree: ProcTree, clock: SteppingClock
) -> None:
    stats = await reader_of(tree, clock).read_stats()
    assert stats.cpu_usage_percent == 20.0
    assert clock.sleeps == [0.1]


async def test_a_counter_that_went_back_is_sampled_again(
    tree: ProcTree, clock: SteppingClock
) -> None:
    tree.write_stat(b"cpu 900 0 0 900\n", b"cpu 10 0 0 10\n", b"cpu 11 0 0 13\n")
    stats = await reader_of(tree, clock).read_stats()
    assert stats.cpu_usage_percent == 25.0
    assert clock.sleeps == [0.1, 0.1]


@pytest.mark.parametrize("later", [[], [b"cpu %d 0 0 0\n" % n for n in (9, 8, 7, 6, 5, 4)]])
async def test_counters_that_never_count_end_in_an_error_after_five_samples(
    later: list[bytes], tree: ProcTree, clock: SteppingClock
) -> None:
    tree.write_stat(b"cpu 10 0 0 0\n", *later)
    with pytest.raises(ProcfsError, match="stat: the cpu counters stood still or went back"):
        await reader_of(tree, clock).read_stats()
    assert len(clock.sleeps) == 5


@pytest.mark.parametrize("name", ["stat", "meminfo", "loadavg", "net/dev"])
async def test_a_missing_file_fails_the_whole_reading_by_name(
    name: str, tree: ProcTree, clock: SteppingClock
) -> None:
    (tree.root / name).unlink()
    with pytest.raises(ProcfsError, match=f"{tree.root}/{name}: No such file") as failure:
        await reader_of(tree, clock).read_stats()
    assert isinstance(failure.value.__cause__, FileNotFoundError)
    assert (failure.value.source, failure.value.reason) == (
        f"{tree.root}/{name}",
        "No such file or directory",
    )


async def test_a_reading_after_a_failed_one_is_not_affected_by_it(
    tree: ProcTree, clock: SteppingClock
) -> None:
    reader = reader_of(tree, clock)
    tree.write_stat(b"garbled", b"cpu 1 0 0 1\n")
    with pytest.raises(ProcfsError, match="stat: no cpu line"):
        await reader.read_stats()
    tree.write_stat(b"cpu 1 0 0 1\n", b"cpu 2 0 0 2\n")
    assert (await reader.read_stats()).cpu_usage_percent == 50.0


async def test_a_file_that_vanishes_between_the_samples_fails_the_reading(tree: ProcTree) -> None:
    clock = SteppingClock(on_sleep=(tree.root / "stat").unlink)
    with pytest.raises(ProcfsError, match="stat: No such file"):
        await reader_of(tree, clock).read_stats()


async def test_all_interfaces_but_the_loopback_are_summed(
    tree: ProcTree, clock: SteppingClock
) -> None:
    tree.write("net/dev", NET_HEADINGS + LO + ETH0 + ETH0.replace(b"eth0", b"wlan0"))
    stats = await reader_of(tree, clock).read_stats()
    assert (stats.network_rx_bytes, stats.network_tx_bytes) == (200, 400)


@pytest.mark.parametrize(("name", "counters"), [("eth0", (100, 200)), ("lo", (900, 900))])
async def test_a_named_interface_is_counted_alone(
    name: str, counters: tuple[int, int], tree: ProcTree, clock: SteppingClock
) -> None:
    stats = await reader_of(tree, clock, net_iface=name).read_stats()
    assert (stats.network_rx_bytes, stats.network_tx_bytes) == counters


async def test_a_named_interface_that_goes_missing_counts_zero_and_is_logged_once_each_time(
    tree: ProcTree, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("test.procfs")
    reader = reader_of(tree, clock, net_iface="wg0", logger=logger)
    present = NET_HEADINGS + ETH0.replace(b"eth0", b"wg0")
    received = []
    for text in (FILES_NET, FILES_NET, present, FILES_NET, FILES_NET):
        tree.write("net/dev", text)
        tree.write_stat(b"cpu 1 0 0 1\n", b"cpu 2 0 0 2\n")
        received.append((await reader.read_stats()).network_rx_bytes)
    assert received == [0, 0, 100, 0, 0]
    assert [r.getMessage() for r in caplog.records] == ["network interface missing"] * 2
    record = vars(caplog.records[0])
    assert (record["levelname"], record["component"]) == ("WARNING", "procfs")
    assert record["interface"] == "wg0"


FILES_NET = NET_HEADINGS + LO + ETH0


async def test_an_interface_name_need_not_be_utf8(tree: ProcTree, clock: SteppingClock) -> None:
    tree.write("net/dev", NET_HEADINGS + ETH0.replace(b"eth0", b"\xff\xfe"))
    reader = reader_of(tree, clock, net_iface=os.fsdecode(b"\xff\xfe"))
    assert (await reader.read_stats()).network_tx_bytes == 200


async def test_an_empty_mount_point_is_the_root(tree: ProcTree, clock: SteppingClock) -> None:
    asked: list[str] = []

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        return STATVFS

    await reader_of(tree, clock, mount_point="", statvfs=statvfs).read_stats()
    assert asked == ["/"]


async def test_an_odd_source_is_read_another_way_and_logged_once(
    tree: ProcTree, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    zeros = b"cpu  0 0 0 0\n"
    tree.write("meminfo", b"MemTotal: 1000 kB\nMemFree: 900 kB\nMemAvailable: 5000 kB\n")
    reader = reader_of(tree, clock)
    for _ in range(3):
        tree.write_stat(zeros + b"cpu 1 0 0 1\n", zeros + b"cpu 2 0 0 2\n")
        stats = await reader.read_stats()
        assert (stats.memory_used_bytes, stats.cpu_usage_percent) == (100 * 1024, 50.0)
    assert [vars(record)["reason"] for record in caplog.records] == [
        "no possible MemAvailable: MemFree, Buffers and Cached are added up",
        "the first cpu line counts nothing: another one is read",
    ]
    assert {record.getMessage() for record in caplog.records} == {"source read another way"}


ODD = b"  odd0: -7 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n"


async def network_of(reader: LinuxSystemReader, tree: ProcTree, text: bytes) -> tuple[int, int]:
    tree.write("net/dev", NET_HEADINGS + text)
    tree.write_stat(b"cpu 1 0 0 1\n", b"cpu 2 0 0 2\n")
    stats = await reader.read_stats()
    return stats.network_rx_bytes, stats.network_tx_bytes


async def test_an_odd_interface_is_left_out_and_logged_once_each_time_it_becomes_one(
    tree: ProcTree, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = reader_of(tree, clock)
    fine = ODD.replace(b"-7", b"7")
    odder = ODD.replace(b"-7", b"-8")  # a counter that goes on is no news
    read = [await network_of(reader, tree, ETH0 + text) for text in (ODD, odder, fine, ODD)]
    assert read == [(100, 200), (100, 200), (107, 400), (100, 200)]
    first, second = map(vars, caplog.records)
    assert first["message"] == second["message"] == "network interface left out"
    assert (first["component"], first["interface"], first["count"]) == ("procfs", "odd0", 1)
    assert first["error"] == "rx bytes is no count: '-7'"


async def test_a_named_interface_that_is_odd_counts_zero_as_a_missing_one_does(
    tree: ProcTree, clock: SteppingClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = reader_of(tree, clock, net_iface="odd0")
    assert await network_of(reader, tree, ETH0 + ODD) == (0, 0)
    assert [record.getMessage() for record in caplog.records] == ["network interface left out"]


async def test_another_machines_proc_has_the_network_of_its_first_process(
    tree: ProcTree, clock: SteppingClock
) -> None:
    tree.write("1/net/dev", NET_HEADINGS + ETH0.replace(b"100", b"777"))
    assert (await reader_of(tree, clock).read_stats()).network_rx_bytes == 777


async def test_another_machines_network_that_cannot_be_read_is_not_replaced_by_ones_own(
    tree: ProcTree, clock: SteppingClock
) -> None:
    """A procfs that hides its processes: ``net`` is a link to the network of whoever reads it."""
    (tree.root / "net").rename(tree.root / "mine")
    (tree.root / "net").symlink_to("mine")
    with pytest.raises(ProcfsError, match="1/net/dev: No such file or directory"):
        await reader_of(tree, clock).read_stats()
