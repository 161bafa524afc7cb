"""Memory goes back to the system when a crowd has gone, and only then."""

from __future__ import annotations

import asyncio
import threading

import pytest

from plexd.background import in_background
from plexd.metrics.testing import ManualClock
from plexd_server.web.crowds import giving_memory_back, trim_heap


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([0, 255, 0], 0), ([300, 300, 200], 0), ([300, 75, 75, 0], 1), ([300, 0, 400, 90, 0], 2)],
)
async def test_memory_is_given_back_once_after_each_crowd(counts: list[int], expected: int) -> None:
    clock, given = ManualClock(), threading.Semaphore(0)
    now = [0]
    async with in_background(giving_memory_back(lambda: now[0], clock, given.release)):
        for now[0] in counts:
            await clock.advance(5)
            await asyncio.get_running_loop().run_in_executor(None, int)
    done = 0
    while given.acquire(blocking=False):
        done += 1

    assert done == expected


def test_this_machine_can_give_memory_back() -> None:
    trim_heap()
