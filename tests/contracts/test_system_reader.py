"""What every `SystemReader` promises, the real one and each that is shipped.

A new implementation is one line in `READERS`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from plexd.api import (
    GROUP_SYSTEM,
    MetricBatch,
    MetricPoint,
    SystemStats,
    check_points,
    decode_batch,
)
from plexd.clock import SystemClock
from plexd.metrics import SystemReader
from plexd.metrics.testing import ScriptedSystemReader
from plexd.procfs import LinuxSystemReader

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: list[Callable[[], SystemReader]] = [
    LinuxSystemReader,
    ScriptedSystemReader,
]


@pytest.fixture(params=READERS, ids=lambda make: make.__name__)
def reader(request: pytest.FixtureRequest) -> SystemReader:
    made: SystemReader = request.param()
    return made


def test_it_is_recognised_as_a_system_reader(reader: SystemReader) -> None:
    assert isinstance(reader, SystemReader)


async def test_a_reading_fits_the_wire(reader: SystemReader) -> None:
    stats = await reader.read_stats()
    assert type(stats) is SystemStats
    point = MetricPoint(timestamp=SystemClock().now(), group=GROUP_SYSTEM, data=stats)
    check_points([point])
    assert decode_batch(MetricBatch([point]).to_json())[0].data == stats


async def test_what_is_used_is_part_of_what_there_is(reader: SystemReader) -> None:
    stats = await reader.read_stats()
    assert 0 <= stats.memory_used_bytes <= stats.memory_total_bytes
    assert 0 <= stats.disk_used_bytes <= stats.disk_total_bytes


async def test_readings_follow_each_other_and_never_count_back(reader: SystemReader) -> None:
    first, second = await reader.read_stats(), await reader.read_stats()
    assert first.network_rx_bytes <= second.network_rx_bytes
    assert first.network_tx_bytes <= second.network_tx_bytes


async def test_readings_at_the_same_time_do_not_disturb_each_other(reader: SystemReader) -> None:
    readings = await asyncio.gather(*[reader.read_stats() for _ in range(5)])
    assert len({stats.memory_total_bytes for stats in readings}) == 1


async def test_a_cancelled_reading_leaves_the_reader_usable(reader: SystemReader) -> None:
    reading = asyncio.create_task(reader.read_stats())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert type(await reader.read_stats()) is SystemStats


async def test_a_reading_does_not_stop_the_loop(reader: SystemReader) -> None:
    loop, turns = asyncio.get_running_loop(), 0
    reading = asyncio.create_task(reader.read_stats())
    started = loop.time()
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    # Thousands in the tenth of a second that two samples of the CPU are apart; 1 if that blocks.
    assert turns >= 10 or loop.time() - started < 0.05
