"""The pipeline with a fault at every call of every port, and cancelled at every step.

Whatever happens, the spool's account is even, and what was acknowledged is at the receiver once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import APIError, LatencyResult, MetricPoint
from plexd.clock import SystemClock
from plexd.metrics import Config, Manager, MemorySpool
from plexd.metrics.testing import ManualClock, RecordingReporter, ScriptedCollector, system_point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from plexd.api import BatchName, MetricBatch
    from plexd.metrics import MetricReporter
    from plexd.spool import Spool

NODE = "node-1"
COLLECT, REPORT = 15.0, 60.0


class Trip:
    """Raises at the n-th call, before or after the call has had its effect."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.tripped = ""

    def entering(self, call: str) -> bool:
        """Whether the call is to raise when it is done; raises itself if that is to be before."""
        self.left -= 1
        if self.left != 0:
            return False
        self.tripped = call
        if not self.after:
            raise RuntimeError(f"before {call}")
        return True


class FaultySpool(MemorySpool):
    """A spool of which one call in its life fails."""

    def __init__(self, trip: Trip, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.trip = trip

    async def append(self, points: Sequence[MetricPoint]) -> None:
        fails = self.trip.entering("append")
        await super().append(points)
        self._fail(fails=fails)

    async def head(self, limit: int) -> MetricBatch | None:
        fails = self.trip.entering("head")
        head = await super().head(limit)
        self._fail(fails=fails)
        return head

    async def acknowledge(self, name: BatchName) -> None:
        fails = self.trip.entering("acknowledge")
        await super().acknowledge(name)
        self._fail(fails=fails)

    def _fail(self, *, fails: bool) -> None:
        if fails:
            raise RuntimeError("after")


class Receiver:
    """Accepts each point once by its name, in several steps, as a server does."""

    def __init__(self, *, most: int = 1000) -> None:
        self.most = most
        self.trip: Trip | None = None
        self.marks: dict[str, int] = {}
        self.effect: Counter[int] = Counter()

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        assert node_id == NODE
        fails = self.trip is not None and self.trip.entering("report")
        await asyncio.sleep(0)
        if len(batch) > self.most:
            raise APIError(413, "too large")
        await asyncio.sleep(0)
        name = batch.name
        assert name is not None
        fresh = batch[max(0, self.marks.get(name.epoch, 0) - name.first + 1) :]
        self.effect.update(p.data.rtt_nano for p in fresh)  # type: ignore[union-attr]  # latency
        self.marks[name.epoch] = max(self.marks.get(name.epoch, 0), name.last)
        await asyncio.sleep(0)
        if fails:
            raise RuntimeError("after report")


class Counting:
    """A collector of 50 numbered latencies a cycle that a test can make fail."""

    def __init__(self, clock: ManualClock, trip: Trip | None = None) -> None:
        self.clock = clock
        self.trip = trip
        self.made = 0

    async def collect(self) -> AsyncIterator[MetricPoint]:
        fails = self.trip is not None and self.trip.entering("collect")
        for _ in range(50):
            now = self.clock.now()
            yield MetricPoint(timestamp=now, group="latency", data=LatencyResult("p", self.made))
            self.made += 1
        if fails:
            raise RuntimeError("after collect")


def manager(
    clock: ManualClock, collectors: Sequence[Any], reporter: MetricReporter, spool: Spool
) -> Manager:
    return Manager(Config(), collectors, reporter, NODE, clock=clock, spool=spool)


def assert_even(spool: MemorySpool, receiver: Receiver) -> None:
    s = spool.statistics()
    assert s.appended == s.waiting + s.acknowledged + s.lost
    assert set(receiver.effect.values()) <= {1}
    assert sum(receiver.effect.values()) >= s.acknowledged


async def end(task: asyncio.Task[None], clock: ManualClock) -> None:
    task.cancel()
    await clock.advance(10)
    assert task.cancelled()


async def deliver_the_rest(clock: ManualClock, receiver: Receiver, spool: MemorySpool) -> None:
    """What is left is whole: another manager delivers it, and then everything arrived once."""
    task = asyncio.create_task(manager(clock, [], receiver, spool).run())
    await clock.advance(REPORT * 2)
    await end(task, clock)
    assert_even(spool, receiver)
    assert spool.statistics().waiting == 0
    assert sum(receiver.effect.values()) == spool.statistics().appended


# An exception at every call


async def with_a_fault(at: int, *, after: bool) -> str:
    """Some minutes with one fault; the call it happened in, empty when there were fewer calls."""
    clock = ManualClock()
    trip = Trip(at, after=after)
    spool, receiver = FaultySpool(trip, clock), Receiver()
    receiver.trip = trip
    collector, other = Counting(clock, trip), ScriptedCollector()
    task = asyncio.create_task(manager(clock, [collector, other], receiver, spool).run())
    await clock.advance(150)
    assert not task.done(), trip.tripped
    assert other.started == 11
    await end(task, clock)
    assert_even(spool, receiver)
    await deliver_the_rest(clock, receiver, spool)
    # Only what the spool refused to take in may be missing; all else arrives.
    missing = collector.made - sum(receiver.effect.values())
    assert missing == (50 if (trip.tripped, after) == ("append", False) else 0)
    return trip.tripped


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
async def test_an_exception_at_any_call_of_any_port_costs_no_point_and_no_other_task(
    *, after: bool
) -> None:
    tripped: Counter[str] = Counter()
    at = 0
    while True:
        at += 1
        call = await with_a_fault(at, after=after)
        if not call:
            break
        tripped[call] += 1
    assert set(tripped) == {"collect", "append", "head", "report", "acknowledge"}
    assert min(tripped.values()) >= 2


# A cancellation at every step

STEPS = 120  # of the event loop; in them a full batch is collected, sealed, sent and forgotten


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, *, most: int) -> bool:
    """Cancel the whole after ``count`` steps; whether by then a batch had been acknowledged."""
    clock = ManualClock()
    spool, receiver = MemorySpool(clock=clock), Receiver(most=most)
    collectors = [Counting(clock), Counting(clock)]
    collectors[1].made = 1000
    task = asyncio.create_task(manager(clock, collectors, receiver, spool).run())
    await steps(count)
    acknowledged = spool.statistics().acknowledged
    await end(task, clock)
    assert_even(spool, receiver)
    await deliver_the_rest(clock, receiver, spool)
    return acknowledged > 0


@pytest.mark.slow
@pytest.mark.parametrize("most", [1000, 30])
async def test_a_cancellation_at_any_step_leaves_nothing_half(most: int) -> None:
    reached = [await cancelled_after(count, most=most) for count in range(STEPS)]
    assert not reached[0]
    assert reached[-1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["report", "collect"])
async def test_any_task_cancelled_by_itself_at_any_step_is_made_good(victim: str) -> None:
    hit = 0
    for count in range(STEPS // 2):
        clock = ManualClock()
        spool, receiver = MemorySpool(clock=clock), Receiver()
        collectors = [Counting(clock), Counting(clock)]
        collectors[1].made = 1000
        task = asyncio.create_task(manager(clock, collectors, receiver, spool).run())
        await steps(count)
        for other in asyncio.all_tasks():
            if other.get_name() == victim:
                other.cancel()
                hit += 1
        await clock.advance(REPORT * 2)
        assert not task.done()
        await end(task, clock)
        assert_even(spool, receiver)
        assert sum(receiver.effect.values()) == spool.statistics().appended
    assert hit > 0


async def test_a_second_cancellation_at_any_step_of_the_end_leaves_nothing_half() -> None:
    for count in range(STEPS // 2):
        clock = ManualClock()
        spool, receiver = MemorySpool(clock=clock), Receiver(most=30)
        task = asyncio.create_task(manager(clock, [Counting(clock)], receiver, spool).run())
        await steps(STEPS)
        task.cancel()
        await steps(count)
        await end(task, clock)
        assert_even(spool, receiver)
        assert spool.statistics().appended == 50


# Clocks that step


async def stamps_with_steps(*by: timedelta) -> tuple[list[float], list[str], int]:
    """When reports were made with the wall clock stepped, the stamps, and how often collected."""
    clock = ManualClock()
    reporter = RecordingReporter()
    moments: list[float] = []

    class Stamping(ScriptedCollector):
        async def collect(self) -> AsyncIterator[MetricPoint]:
            self.started += 1
            yield system_point(clock.now())

    class Timing(RecordingReporter):
        async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
            moments.append(clock.monotonic())
            await reporter.report_metrics(node_id, batch)

    collector = Stamping()
    task = asyncio.create_task(
        manager(clock, [collector], Timing(), MemorySpool(clock=clock)).run()
    )
    for step in by:
        await clock.advance(100)
        clock.step(step)
    await clock.advance(100)
    await end(task, clock)
    return moments, [point.timestamp.isoformat() for point in reporter.points], collector.started


async def test_a_wall_clock_that_steps_by_years_changes_stamps_and_nothing_else() -> None:
    still = timedelta()
    jumps = [
        timedelta(hours=1),
        timedelta(hours=-1),
        timedelta(days=-3650),
        timedelta(days=3650),
        timedelta(days=80 * 365),
    ]
    moments, stamps, collected = await stamps_with_steps(*[still] * len(jumps))
    stepped, other_stamps, other_collected = await stamps_with_steps(*jumps)
    # Points that are named before and after a step come in two batches.
    assert (set(stepped), other_collected) == (set(moments), collected)
    assert len(other_stamps) == len(stamps)
    assert other_stamps[0] == stamps[0]
    assert other_stamps[-1].startswith("2106-")


async def test_a_clock_stepped_while_an_attempt_is_waited_for_does_not_move_it() -> None:
    clock = ManualClock()
    reporter = RecordingReporter(APIError(503, "busy", timedelta(seconds=600)))
    spool = MemorySpool(clock=clock)
    task = asyncio.create_task(manager(clock, [Counting(clock)], reporter, spool).run())
    await clock.advance(REPORT)
    assert len(reporter.attempts) == 1
    for years in (10, -20, 10):
        clock.step(timedelta(days=365 * years))
        await clock.advance(100)
    assert len(reporter.attempts) == 1
    await clock.advance(400)
    assert len(reporter.attempts) > 1
    await end(task, clock)


async def test_a_pause_of_the_machine_while_an_attempt_is_waited_for_is_one_attempt() -> None:
    clock = ManualClock()
    reporter = RecordingReporter(*[OSError("down")] * 50)
    spool = MemorySpool(clock=clock)
    task = asyncio.create_task(manager(clock, [Counting(clock)], reporter, spool).run())
    await clock.advance(REPORT * 3)
    before = len(reporter.attempts)
    clock._elapsed += 86_400
    await clock.advance(0.001)
    assert len(reporter.attempts) - before == 1
    await end(task, clock)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/St_Johns"])
def test_the_machines_time_zone_changes_no_stamp(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        now = clock.now()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert now.tzinfo is UTC
    assert timedelta() <= now - before < timedelta(minutes=1)
