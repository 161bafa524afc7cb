from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from plexd.clock import SystemClock
from plexd_server.errors import StoreBusy, StoreClosed, StoreError
from plexd_server.store import Receipt, Report
from plexd_server.store.duckdb.fault_log import FaultLog
from plexd_server.store.duckdb.writer import GroupWriter
from support.points import NOW, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ScriptedDisk:
    """Commits when it is let; fails for nodes called ``bad``."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def commit(self, deliveries: Sequence[Report]) -> list[Receipt]:
        self.entered.release()
        assert self.open.wait(10)
        names = [delivery.node_id for delivery in deliveries]
        if "bad" in names:
            raise StoreError("cannot store a bad one")
        if "odd" in names:
            raise ZeroDivisionError("unforeseen")
        self.groups.append(names)
        return [Receipt(len(delivery.points)) for delivery in deliveries]


@pytest.fixture
def disk() -> Iterator[ScriptedDisk]:
    made = ScriptedDisk()
    yield made
    made.open.set()


def writing(disk: ScriptedDisk, max_points: int) -> GroupWriter:
    return GroupWriter(disk.commit, max_points=max_points, faults=FaultLog("t", SystemClock()))


def named(node_id: str, points: int = 1) -> Report:
    return Report(node_id, [SYSTEM] * points, NOW)


async def start(
    writer: GroupWriter, disk: ScriptedDisk, *node_ids: str
) -> list[asyncio.Task[Receipt]]:
    """The first delivery is in its commit, the others wait behind it."""
    tasks = [asyncio.create_task(writer.write(named(node_ids[0])))]
    await asyncio.to_thread(disk.entered.acquire)
    tasks += [asyncio.create_task(writer.write(named(node_id))) for node_id in node_ids[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_during_a_commit_shares_the_next_one(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    tasks = await start(writer, disk, "a", "b", "c", "d")
    disk.open.set()

    await asyncio.gather(*tasks)

    assert disk.groups == [["a"], ["b", "c", "d"]]
    await asyncio.to_thread(writer.close)


async def test_a_bad_delivery_fails_alone(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    tasks = await start(writer, disk, "a", "b", "bad", "odd", "c")
    disk.open.set()

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [
        Receipt, Receipt, StoreError, StoreError, Receipt
    ]  # fmt: skip
    assert disk.groups == [["a"], ["b"], ["c"]]
    await asyncio.to_thread(writer.close)


async def test_a_full_queue_is_told_at_once_and_not_before_one_delivery_waits(
    disk: ScriptedDisk,
) -> None:
    writer = writing(disk, 2)
    large = asyncio.create_task(writer.write(named("large", 50)))
    await asyncio.to_thread(disk.entered.acquire)
    waiting = asyncio.create_task(writer.write(named("waiting", 2)))
    await asyncio.sleep(0)

    with pytest.raises(StoreBusy):
        await writer.write(named("refused"))

    disk.open.set()
    await asyncio.gather(large, waiting)
    await asyncio.to_thread(writer.close)


async def test_giving_up_waiting_does_not_undo_a_write_or_hurt_others(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    first, second, third = await start(writer, disk, "a", "b", "c")
    second.cancel()
    disk.open.set()

    await asyncio.gather(first, third)

    assert disk.groups == [["a"], ["b", "c"]]
    await asyncio.to_thread(writer.close)


async def test_closing_writes_what_waits_and_refuses_what_comes_after(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    tasks = await start(writer, disk, "a", "b")
    closing = asyncio.create_task(asyncio.to_thread(writer.close))
    disk.open.set()
    await closing

    await asyncio.gather(*tasks)

    with pytest.raises(StoreClosed):
        await writer.write(named("late"))


class Watch(SystemClock):
    """Shows the seconds it was set to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_failure_is_logged_at_once_then_once_a_minute_then_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch()
    faults = FaultLog("writing", watch)
    for seconds in (0, 1, 59, 60, 61):
        watch.seconds = seconds
        faults.failed(OSError("No space left on device"))
    assert faults.failing
    faults.worked()
    faults.worked()

    assert not faults.failing
    told = [(vars(record)["failures"], record.message) for record in caplog.records]
    assert told == [(1, "the store fails"), (4, "the store fails"), (5, "the store works again")]
    assert "No space left" in vars(caplog.records[0])["error"]
