from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plexd.background import cancel, cut, in_background
from plexd.metrics.testing import ManualClock

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def _for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_works_run_beside_the_body_and_end_with_it() -> None:
    ended: list[str] = []
    async with in_background(_for_ever(ended), _for_ever(ended)):
        await asyncio.sleep(0)
        assert ended == []
    assert ended == ["ended", "ended"]


async def test_a_work_that_fails_ends_the_body_with_its_own_error() -> None:
    async def fail() -> None:
        raise KeyError("x") from ValueError("cause")

    with pytest.raises(KeyError) as failed:
        async with in_background(fail()):
            await asyncio.Event().wait()
    assert isinstance(failed.value.__cause__, ValueError)


async def test_the_bodys_own_error_is_raised_as_it_is() -> None:
    ended: list[str] = []

    async def body() -> None:
        async with in_background(_for_ever(ended)):
            await asyncio.sleep(0)
            raise KeyError("x")

    with pytest.raises(KeyError):
        await body()
    assert ended == ["ended"]


async def test_a_cancelled_body_ends_the_works() -> None:
    ended: list[str] = []

    async def body() -> None:
        async with in_background(_for_ever(ended)):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    for _ in range(3):
        await asyncio.sleep(0)
    await cancel(task)
    assert task.cancelled()
    assert ended == ["ended"]


async def test_cancelling_nothing_returns() -> None:
    await cancel()


async def test_a_task_that_ignores_its_cancellation_is_left_after_a_second() -> None:
    clock, let_go = ManualClock(), asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    task: asyncio.Task[Any] = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    cutting = asyncio.create_task(cut(task, clock))
    await clock.advance(1.0)
    await cutting
    assert not task.done()
    let_go.set()
    await task
