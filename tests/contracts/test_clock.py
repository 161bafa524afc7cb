"""What every `Clock` promises."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import pytest

from plexd.clock import Clock, SystemClock
from plexd.metrics.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Advance(Protocol):
    """Makes time pass: by itself on the real clock, by hand on the manual one."""

    def __call__(self, seconds: float) -> Awaitable[None]: ...


@pytest.fixture(params=["system", "manual"])
def clocks(request: pytest.FixtureRequest) -> tuple[Clock, Callable[[float], Awaitable[None]]]:
    if request.param == "system":
        return SystemClock(), asyncio.sleep
    manual = ManualClock()
    return manual, manual.advance


Clocks = tuple[Clock, Advance]


async def test_the_time_of_day_is_aware_and_in_utc(clocks: Clocks) -> None:
    clock, _ = clocks
    assert clock.now().utcoffset() == timedelta(0)


async def test_the_monotonic_clock_moves_on_by_what_was_slept(clocks: Clocks) -> None:
    clock, advance = clocks
    before = clock.monotonic()

    async def sleep() -> float:
        await clock.sleep(0.02)
        return clock.monotonic() - before

    sleeper = asyncio.ensure_future(sleep())
    await advance(0.05)
    assert await sleeper >= 0.02


async def test_sleeping_for_nothing_lets_others_run(clocks: Clocks) -> None:
    clock, _ = clocks
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    await clock.sleep(0)
    assert ran.is_set()


async def test_a_timeout_cuts_what_takes_too_long(clocks: Clocks) -> None:
    clock, advance = clocks

    async def wait() -> None:
        async with clock.timeout(0.01):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await advance(0.05)
    with pytest.raises(TimeoutError):
        await waiting


async def test_a_timeout_of_nothing_cuts_at_once(clocks: Clocks) -> None:
    clock, _ = clocks
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.Event().wait()


async def test_a_timeout_that_is_not_reached_changes_nothing(clocks: Clocks) -> None:
    clock, advance = clocks
    async with clock.timeout(0.02):
        pass
    await advance(0.04)


async def test_a_cancelled_sleep_ends(clocks: Clocks) -> None:
    clock, advance = clocks
    sleeper = asyncio.ensure_future(clock.sleep(0.01))
    await asyncio.sleep(0)
    sleeper.cancel()
    await advance(0.02)
    assert sleeper.cancelled()


async def test_the_manual_clock_fires_timers_in_their_order() -> None:
    clock = ManualClock()
    fired: list[int] = []

    async def note(after: int) -> None:
        await clock.sleep(after)
        fired.append(after)

    async with asyncio.TaskGroup() as group:
        for after in (3, 1, 2):
            group.create_task(note(after))
        await clock.advance(2)
        assert fired == [1, 2]
        await clock.advance(1)
    assert fired == [1, 2, 3]


def test_stepping_the_wall_clock_leaves_the_monotonic_one_alone() -> None:
    clock = ManualClock()
    before = clock.now()
    clock.step(timedelta(days=-3650))
    assert clock.now() == before - timedelta(days=3650)
    assert clock.monotonic() == 0
