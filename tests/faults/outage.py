"""A day without a control plane, on a clock that is turned by hand (C13, D01).

A cycle is what 50 peers make: a round trip and a tunnel each, the machine's point and the agent's.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from array import array
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from faults.numbered import NumberedCollector
from plexd import api, metrics
from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from plexd.api import BatchName, MetricBatch, MetricPoint
    from plexd.metrics.ports import MetricReporter
    from plexd.spool import Refusal, Spool, SpoolStatistics

__all__ = ["POINTS_PER_CYCLE", "Outage", "outage"]

POINTS_PER_CYCLE = 102
_COLLECT_SECONDS = 15.0
_T = TypeVar("_T")
# That reports fail is what this is about.
_LOGGER = logging.getLogger("outage")
_LOGGER.addHandler(logging.NullHandler())


class Outage(NamedTuple):
    """What the outage came to. Memory is this process's, in MiB, at the end of each part."""

    collected: int
    delivered: int
    in_order: bool
    attempts: int
    spool_mib: float
    started_mib: float
    collected_mib: float
    reopened_mib: float
    drained_mib: float
    drain_seconds: float


class QuietSpool:
    """A `Spool` that knows when nobody is in it, so that a clock by hand can wait for a thread."""

    def __init__(self, inner: Spool) -> None:
        self._inner = inner
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def quiet(self) -> None:
        """Return once nobody has been inside for as many turns as the pipeline's chain is long."""
        calm = 0
        while calm < 100:
            await self._empty.wait()
            await asyncio.sleep(0)
            calm = calm + 1 if self._empty.is_set() else 0

    async def _within(self, call: Awaitable[_T]) -> _T:
        self._inside += 1
        self._empty.clear()
        try:
            return await call
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def append(self, points: Sequence[MetricPoint]) -> None:
        await self._within(self._inner.append(points))

    async def head(self, limit: int) -> MetricBatch | None:
        return await self._within(self._inner.head(limit))

    async def acknowledge(self, name: BatchName) -> None:
        await self._within(self._inner.acknowledge(name))

    async def set_aside(self, refusal: Refusal) -> None:
        await self._within(self._inner.set_aside(refusal))

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        await self._within(self._inner.rename(name, upto, newest))

    async def dead_letters(self) -> Sequence[Refusal]:
        return await self._within(self._inner.dead_letters())

    def statistics(self) -> SpoolStatistics:
        return self._inner.statistics()

    async def aclose(self) -> None:
        await self._inner.aclose()


class CountingReporter:
    """A `MetricReporter` that is off or on, and keeps of each point its number only."""

    def __init__(self) -> None:
        self.is_on = False
        self.attempts = 0
        self.numbers = array("I")  # a list of objects would be most of the memory measured

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        self.attempts += 1
        if not self.is_on:
            raise api.TransportError(f"{node_id} has no way out")
        for point in batch:
            assert isinstance(point.data, api.LatencyResult)
            self.numbers.append(point.data.rtt_nano)


async def outage(directory: Path, duration: timedelta) -> Outage:
    """Collect for ``duration`` in vain, open the spool anew, and deliver all of it."""
    cycles = round(duration.total_seconds() / _COLLECT_SECONDS)
    clock, reporter = ManualClock(), CountingReporter()
    started = _resident_mib()
    async with DiskSpool(directory, clock=clock) as inner:
        spool = QuietSpool(inner)
        collector = NumberedCollector(0, POINTS_PER_CYCLE, cycles)
        async with _running(spool, clock, reporter, collector):
            for _ in range(cycles):
                await clock.advance(_COLLECT_SECONDS)
                await spool.quiet()
        stored = inner.statistics().stored_bytes
        waiting = inner.statistics().waiting
    collected = _resident_mib()
    assert waiting == cycles * POINTS_PER_CYCLE, (waiting, cycles * POINTS_PER_CYCLE)
    reporter.is_on = True
    async with DiskSpool(directory, clock=clock) as inner:
        reopened = _resident_mib()
        began = clock.monotonic()
        spool = QuietSpool(inner)
        async with _running(spool, clock, reporter, NumberedCollector(0, 0, 0)):
            while inner.statistics().waiting:
                await clock.advance(1.0)
                await spool.quiet()
        drain_seconds = clock.monotonic() - began
    return Outage(
        collected=cycles * POINTS_PER_CYCLE,
        delivered=len(reporter.numbers),
        in_order=reporter.numbers == array("I", range(cycles * POINTS_PER_CYCLE)),
        attempts=reporter.attempts,
        spool_mib=stored / 2**20,
        started_mib=started,
        collected_mib=collected,
        reopened_mib=reopened,
        drained_mib=_resident_mib(),
        drain_seconds=drain_seconds,
    )


class _running:  # noqa: N801  # reads as a verb where it is used
    """The manager, running until the block is left."""

    def __init__(
        self,
        spool: QuietSpool,
        clock: ManualClock,
        reporter: MetricReporter,
        collector: NumberedCollector,
    ) -> None:
        config = metrics.Config(collect_interval=timedelta(seconds=_COLLECT_SECONDS))
        self._manager = metrics.Manager(
            config, [collector], reporter, "node-1", _LOGGER, spool=spool, clock=clock
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._manager.run())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


def _resident_mib() -> float:
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * resource.getpagesize() / 2**20
