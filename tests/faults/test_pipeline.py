"""An error in, or a cancellation at, any step of the pipeline (A08, A09)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import pytest

from faults.numbered import NumberedCollector, account
from plexd import metrics
from plexd.api import MetricBatch
from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, MemorySpool
from support.clocks import HurriedClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

    from plexd.api import BatchName, MetricPoint
    from plexd.clock import Clock
    from plexd.metrics.ports import Collector, MetricReporter
    from plexd.spool import Spool

T = TypeVar("T")
CYCLES, SIZE = 6, 5


class DedupingReporter:
    """A `MetricReporter` to whom a name it knows says nothing new."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, int], bytes] = {}

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        assert batch.name is not None
        for place, point in enumerate(batch, batch.name.first):
            body = MetricBatch([point]).to_json()[1:-1]
            assert self._points.setdefault((batch.name.epoch, place), body) == body, node_id
        await asyncio.sleep(0)

    @property
    def points(self) -> list[bytes]:
        return list(self._points.values())


class Stumbling:
    """Raises at the n-th step that goes through it, before it is taken or after."""

    def __init__(self, number: int, *, after: bool) -> None:
        self._left = number
        self._after = after

    @property
    def is_ahead(self) -> bool:
        """Whether there were fewer steps than that."""
        return self._left > 0

    async def step(self, work: Awaitable[T]) -> T:
        self._left -= 1
        if self._left or self._after:
            done = await work
            if self._left:
                return done
        else:
            work.close()  # type: ignore[attr-defined]  # it is a coroutine, and was never begun
        raise RuntimeError("stumbled")


class StumblingSpool(MemorySpool):
    """``kept`` are the numbers that a caller was told are in."""

    def __init__(self, stumbling: Stumbling, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._stumbling = stumbling
        self.kept: list[int] = []

    async def append(self, points: Sequence[MetricPoint]) -> None:
        numbers = [point.data.rtt_nano for point in points if hasattr(point.data, "rtt_nano")]
        before = self.statistics().appended
        try:
            await self._stumbling.step(super().append(points))
        finally:
            if self.statistics().appended > before:
                self.kept += numbers

    async def head(self, limit: int) -> MetricBatch | None:
        return await self._stumbling.step(super().head(limit))

    async def acknowledge(self, name: BatchName) -> None:
        await self._stumbling.step(super().acknowledge(name))


class StumblingReporter(DedupingReporter):
    def __init__(self, stumbling: Stumbling) -> None:
        super().__init__()
        self._stumbling = stumbling

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        await self._stumbling.step(super().report_metrics(node_id, batch))


def manager(
    collector: Collector, reporter: MetricReporter, spool: Spool, clock: Clock
) -> metrics.Manager:
    seconds = timedelta(seconds=5)
    config = metrics.Config(collect_interval=seconds, report_interval=2 * seconds, batch_size=7)
    return metrics.Manager(config, [collector], reporter, "node-1", spool=spool, clock=clock)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("part", ["spool", "reporter"])
async def test_an_error_at_any_call_costs_at_most_the_collection_it_struck(
    part: str, after: bool
) -> None:
    never = Stumbling(-1, after=False)
    for number in range(1, 40):
        stumbling = Stumbling(number, after=after)
        clock = ManualClock()
        spool = StumblingSpool(stumbling if part == "spool" else never, clock)
        reporter = StumblingReporter(stumbling if part == "reporter" else never)
        collector = NumberedCollector(0, SIZE, CYCLES)
        running = asyncio.create_task(manager(collector, reporter, spool, clock).run())
        await clock.advance(300)
        assert not running.done()
        await stop(running)
        found = account(spool.kept, reporter.points)
        assert found.is_exact, (number, found)
        assert len(spool.kept) >= (CYCLES - 1) * SIZE
        assert spool.statistics().waiting == 0
        if stumbling.is_ahead:
            break
    assert number > (6 if part == "reporter" else 38)


async def test_cancelled_after_any_number_of_turns_it_leaves_nothing_half_done(
    tmp_path: Path,
) -> None:
    for turns in range(0, 300, 5):
        clock, reporter = HurriedClock(2000.0), DedupingReporter()
        collector = NumberedCollector(0, SIZE, CYCLES)
        async with DiskSpool(tmp_path / str(turns), clock=clock) as spool:
            running = asyncio.create_task(manager(collector, reporter, spool, clock).run())
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            running.cancel()
            await asyncio.wait([running])
        appended = await _delivered(tmp_path / str(turns), reporter)
        found = account((), reporter.points)
        assert found.is_exact, (turns, found)
        assert found.arrived == appended, turns


async def _delivered(directory: Path, reporter: MetricReporter) -> int:
    """Deliver what is left; all points ever appended."""
    async with DiskSpool(directory) as spool:
        while (batch := await spool.head(7)) is not None:
            await reporter.report_metrics("node-1", batch)
            assert batch.name is not None
            await spool.acknowledge(batch.name)
        done = spool.statistics()
        assert done.appended == done.acknowledged + done.waiting + done.lost
        assert (done.waiting, done.lost) == (0, 0)
        return done.appended
