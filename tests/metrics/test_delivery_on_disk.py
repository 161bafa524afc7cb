"""The manager over the spool it has in production: cut at any moment, and then resumed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, LatencyResult, MetricPoint
from plexd.metrics import Config, Manager
from plexd.spool import DiskSpool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from plexd.api import MetricBatch

pytestmark = pytest.mark.usefixtures("nothing_leaks")

NODE = "node-1"
FAST = Config(
    collect_interval=timedelta(milliseconds=3),
    report_interval=timedelta(milliseconds=5),
    batch_size=7,
)


class Receiver:
    """Remembers per epoch how far it got, as the server does; now and then its answer is lost."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.marks: dict[str, int] = {}
        self.effect: Counter[int] = Counter()
        self.order: list[int] = []
        self.calm = False

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        assert node_id == NODE
        name = batch.name
        assert name is not None
        await asyncio.sleep(self.random.random() / 500)
        if not self.calm and len(batch) > 1 and self.random.random() < 0.2:
            raise APIError(413, "too large")
        known = max(0, self.marks.get(name.epoch, 0) - name.first + 1)
        if known < len(batch):
            self.marks[name.epoch] = name.last
            numbers = [p.data.rtt_nano for p in batch[known:]]  # type: ignore[union-attr]  # latency
            self.effect.update(numbers)
            self.order += numbers
        await asyncio.sleep(self.random.random() / 500)
        if not self.calm and self.random.random() < 0.2:
            raise APIError(503, "the answer was lost", timedelta())


class Counting:
    """Latencies numbered through over all runs."""

    def __init__(self) -> None:
        self.made = 0

    async def collect(self) -> AsyncIterator[MetricPoint]:
        for _ in range(5):
            now = datetime.now(UTC)
            yield MetricPoint(timestamp=now, group="latency", data=LatencyResult("p", self.made))
            self.made += 1


async def run_for(
    seconds: float, folder: Path, collectors: list[Counting], receiver: Receiver, *, cut: bool
) -> None:
    async with DiskSpool(folder) as spool:
        manager = Manager(FAST, collectors, receiver, NODE, spool=spool)
        task = asyncio.create_task(manager.run())
        await asyncio.sleep(seconds)
        task.cancel()
        if cut:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        s = spool.statistics()
        assert s.appended == s.waiting + s.acknowledged + s.lost
        assert s.lost == 0


@pytest.mark.slow
async def test_a_delivery_cut_anywhere_arrives_once_and_in_order(tmp_path: Path) -> None:
    chance = random.Random(7)
    collector, receiver = Counting(), Receiver(seed=11)
    for _ in range(25):
        seconds = chance.random() / 20
        await run_for(seconds, tmp_path, [collector], receiver, cut=chance.random() < 0.7)
    receiver.calm = True
    async with DiskSpool(tmp_path) as spool:
        manager = Manager(FAST, [], receiver, NODE, spool=spool)
        task = asyncio.create_task(manager.run())
        async with asyncio.timeout(30):
            while spool.statistics().waiting:  # noqa: ASYNC110  # the disk has no event to offer
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert spool.statistics().acknowledged == spool.statistics().appended
        assert sum(receiver.effect.values()) == spool.statistics().appended
    assert set(receiver.effect.values()) == {1}
    assert receiver.order == sorted(receiver.order)
    assert len(receiver.order) > 100
