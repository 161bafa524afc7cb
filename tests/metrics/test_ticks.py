"""The grid: no drift, no bursts, nothing uncounted."""

from __future__ import annotations

import asyncio

from plexd.metrics.testing import ManualClock
from plexd.metrics.ticks import Ticks


async def test_the_first_tick_is_at_once() -> None:
    clock = ManualClock()
    await Ticks(clock, 15).wait()
    assert clock.monotonic() == 0


async def test_ticks_do_not_drift_when_work_takes_time() -> None:
    clock = ManualClock()
    seen: list[float] = []

    async def work() -> None:
        ticks = Ticks(clock, 15)
        while True:
            await ticks.wait()
            seen.append(clock.monotonic())
            await clock.sleep(4)

    working = asyncio.ensure_future(work())
    await clock.advance(46)
    working.cancel()
    assert seen == [0, 15, 30, 45]


async def test_a_tick_that_is_a_little_late_still_counts() -> None:
    clock = ManualClock()
    ticks = Ticks(clock, 15)
    await ticks.wait()
    await clock.advance(20)
    await ticks.wait()
    assert (clock.monotonic(), ticks.missed) == (20, 0)
    assert ticks.seconds_left() == 10


async def test_after_a_pause_there_is_one_tick_and_the_rest_is_counted() -> None:
    clock = ManualClock()
    ticks = Ticks(clock, 15)
    await ticks.wait()
    await clock.advance(615)
    assert ticks.seconds_left() == 0
    await ticks.wait()
    assert ticks.missed == 40
    assert ticks.seconds_left() == 15


async def test_a_delay_moves_the_whole_grid() -> None:
    clock = ManualClock()
    ticks = Ticks(clock, 60, delay=7)
    assert ticks.seconds_left() == 7
    await clock.advance(7)
    await ticks.wait()
    assert ticks.seconds_left() == 60
