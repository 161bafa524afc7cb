"""The agent's view of itself."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import AgentStats
from plexd.metrics import AgentStatsCollector
from plexd.metrics.collectors import process
from plexd.metrics.testing import ManualClock, ManualReconnects

if TYPE_CHECKING:
    from pathlib import Path


async def read(collector: AgentStatsCollector) -> AgentStats:
    (point,) = [p async for p in collector.collect()]
    assert isinstance(point.data, AgentStats)
    assert (point.group, point.peer_id) == ("agent", "")
    return point.data


async def test_uptime_runs_from_the_given_start() -> None:
    clock = ManualClock()
    collector = AgentStatsCollector(clock.now() - timedelta(hours=1), clock=clock)
    assert (await read(collector)).uptime_seconds == 3600
    await clock.advance(0.5)
    assert (await read(collector)).uptime_seconds == 3600.5


async def test_uptime_does_not_notice_a_step_of_the_wall_clock() -> None:
    clock = ManualClock()
    collector = AgentStatsCollector(clock.now(), clock=clock)
    clock.step(timedelta(days=-1))
    assert (await read(collector)).uptime_seconds == 0


async def test_a_start_in_the_future_is_no_negative_uptime() -> None:
    clock = ManualClock()
    collector = AgentStatsCollector(clock.now() + timedelta(days=1), clock=clock)
    assert (await read(collector)).uptime_seconds == 0


async def test_tasks_and_threads_are_counted() -> None:
    collector = AgentStatsCollector(ManualClock().now())
    before = (await read(collector)).goroutine_count
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    task = asyncio.create_task(asyncio.Event().wait())
    after = (await read(collector)).goroutine_count
    stop.set()
    thread.join()
    task.cancel()
    assert after == before + 2


async def test_memory_is_that_of_this_process() -> None:
    collector = AgentStatsCollector(ManualClock().now())
    before = await read(collector)
    ballast = bytearray(b"x" * 32_000_000)
    after = await read(collector)
    assert after.heap_alloc_bytes - before.heap_alloc_bytes > 25_000_000
    assert after.heap_sys_bytes >= after.heap_alloc_bytes // 2
    del ballast


async def test_garbage_collections_are_counted_and_timed() -> None:
    collector = AgentStatsCollector(ManualClock().now())
    before = await read(collector)
    gc.collect()
    after = await read(collector)
    assert after.gc_num_gc > before.gc_num_gc
    assert after.gc_pause_total_ns > before.gc_pause_total_ns


async def test_a_second_collector_does_not_count_twice() -> None:
    AgentStatsCollector(ManualClock().now())
    callbacks = len(gc.callbacks)
    AgentStatsCollector(ManualClock().now())
    assert len(gc.callbacks) == callbacks


def test_a_collection_already_running_when_watched_is_not_counted() -> None:
    watch = process.GarbageCollectorWatch()
    watch("stop", {})
    assert (watch.collections, watch.pause_total_ns) == (0, 0)


async def test_reconnects_come_from_the_counter() -> None:
    clock = ManualClock()
    reconnects = ManualReconnects(3)
    collector = AgentStatsCollector(clock.now(), reconnects, clock=clock)
    assert (await read(collector)).reconnect_count == 3
    assert (await read(AgentStatsCollector(clock.now()))).reconnect_count == 0


def test_the_kernels_status_file_is_read_in_kilobytes() -> None:
    text = b"Name:\tplexd\nVmData:\t   2048 kB\nRssAnon:\t    1024 kB\nThreads:\t1\n"
    assert process.parse_status(text) == process.Memory(1024 * 1024, 2048 * 1024)


def test_a_kernel_that_does_not_count_anonymous_memory_has_what_is_resident() -> None:
    text = b"VmSize: 9 kB\nVmRSS: 5 kB\nVmData: 2 kB\n"
    assert process.parse_status(text) == process.Memory(5 * 1024, 2 * 1024)
    text = b"VmSize: 9 kB\nVmRSS: 5 kB\nRssAnon: 1 kB\n"
    assert process.parse_status(text) == process.Memory(1024, 9 * 1024)


@pytest.mark.parametrize(
    "text",
    [b"", b"RssAnon: 1 kB\n", b"RssAnon: x kB\nVmData: 1 kB\n", b"RssAnon: 1\nVmData: 1 kB\n"],
)
def test_a_garbled_status_file_is_an_error_that_names_it(text: bytes, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_bytes(text)
    with pytest.raises(ValueError, match=str(status)):
        process.read_memory(status)
