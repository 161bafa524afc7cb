"""How fast a backlog is sent."""

from __future__ import annotations

import asyncio

import pytest

from plexd.metrics.pace import Pace
from plexd.metrics.testing import ManualClock
from plexd.rates import TokenBucket

WINDOW = 30.0


async def gone(pace: Pace, clock: ManualClock, seconds: float) -> int:
    """How many batches are sent within ``seconds`` when more are always waiting."""
    count = 0

    async def go() -> None:
        nonlocal count
        while True:
            await pace.wait()
            count += 1

    task = asyncio.create_task(go())
    await clock.advance(seconds)
    task.cancel()
    await asyncio.wait([task])
    return count


async def test_ten_are_sent_at_once_and_then_ten_a_second() -> None:
    clock = ManualClock()
    pace = Pace(100, WINDOW, clock)
    assert await gone(pace, clock, 0) == 10
    assert await gone(pace, clock, 6) == 60


async def test_a_backlog_is_sent_at_twice_the_live_rate() -> None:
    clock = ManualClock()
    pace = Pace(100, WINDOW, clock)
    pace.produced(60_000)  # 600 batches in 30 s
    assert pace.rate() == 40
    assert await gone(pace, clock, 10) == pytest.approx(410, abs=1)


async def test_production_counts_for_two_collections_only() -> None:
    clock = ManualClock()
    pace = Pace(100, WINDOW, clock)
    pace.produced(60_000)
    await clock.advance(WINDOW - 0.1)
    assert pace.rate() == 40
    await clock.advance(0.1)
    assert pace.rate() == 10


async def test_a_pause_saves_up_no_more_than_one_burst() -> None:
    clock = ManualClock()
    pace = Pace(100, WINDOW, clock)
    await clock.advance(86_400)
    assert await gone(pace, clock, 0) == 10


async def test_at_the_end_nothing_waits_any_more() -> None:
    clock = ManualClock()
    pace = Pace(100, WINDOW, clock)
    await gone(pace, clock, 0)
    waiting = asyncio.create_task(pace.wait())
    await clock.advance(0)
    assert not waiting.done()
    pace.lift()
    async with asyncio.timeout(5):
        await waiting
        for _ in range(1000):
            await pace.wait()


def test_a_bucket_says_how_long_until_the_next_one() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, clock)
    assert [bucket.take(0.1) for _ in range(4)] == [0, 0, 10, 10]
