"""The control plane and the local endpoint side by side: neither holds the other up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, LatencyResult, MetricPoint
from plexd.metrics import Config, Manager, MemorySpool, MultiReporter
from plexd.metrics.testing import ManualClock, RecordingReporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plexd.api import MetricBatch

LOGGER = logging.getLogger("plexd.test.two")
CYCLES = 40


class Counting:
    """One batch a cycle, numbered through, for `CYCLES` cycles."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.made = 0

    async def collect(self) -> AsyncIterator[MetricPoint]:
        for _ in range(100 if self.made < 100 * CYCLES else 0):
            now = self.clock.now()
            yield MetricPoint(timestamp=now, group="latency", data=LatencyResult("p", self.made))
            self.made += 1


async def run(platform: RecordingReporter, local: RecordingReporter) -> MemorySpool:
    clock = ManualClock()
    spool = MemorySpool(clock=clock)
    async with MultiReporter(platform, local, LOGGER, clock=clock) as both:
        manager = Manager(Config(), [Counting(clock)], both, "n", LOGGER, clock=clock, spool=spool)
        task = asyncio.create_task(manager.run())
        await clock.advance(15 * CYCLES / 2)
        local.failures.clear()
        platform.failures.clear()
        await clock.advance(15 * CYCLES / 2 + 600)
        task.cancel()
        await clock.advance(10)
        await asyncio.wait([task])
    return spool


def numbers(reporter: RecordingReporter) -> list[int]:
    return [p.data.rtt_nano for p in reporter.points]  # type: ignore[union-attr]  # latency


def down() -> list[BaseException]:
    return [APIError(503, "down") for _ in range(10_000)]


async def test_a_local_endpoint_that_is_down_costs_the_control_plane_nothing() -> None:
    platform, local = RecordingReporter(), RecordingReporter(*down())
    spool = await run(platform, local)
    assert numbers(platform) == list(range(100 * CYCLES))
    assert spool.statistics().waiting == 0
    # What it missed is not sent again, what came after it was up is there once.
    assert set(Counter(numbers(local)).values()) == {1}
    assert numbers(local)[-1] == 100 * CYCLES - 1


async def test_a_control_plane_that_is_down_keeps_no_batch_from_the_local_endpoint_twice() -> None:
    platform, local = RecordingReporter(*down()), RecordingReporter()
    await run(platform, local)
    assert numbers(platform) == list(range(100 * CYCLES))
    assert numbers(local) == list(range(100 * CYCLES))


@pytest.mark.parametrize("hung", ["platform", "local"])
async def test_one_that_hangs_for_ever_does_not_stop_the_other(hung: str) -> None:
    class Hanging(RecordingReporter):
        async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
            self.attempts.append(batch)
            self.node_ids.append(node_id)
            await asyncio.Event().wait()

    platform = Hanging() if hung == "platform" else RecordingReporter()
    local = Hanging() if hung == "local" else RecordingReporter()
    spool = await run(platform, local)
    if hung == "local":
        assert numbers(platform) == list(range(100 * CYCLES))
        assert len(local.attempts) == 4
    else:
        # One report in ten minutes, and each batch that got its turn is at the local endpoint.
        assert len(platform.attempts) >= 2
        assert numbers(local) == list(range(100))
        assert spool.statistics().waiting == 100 * CYCLES
