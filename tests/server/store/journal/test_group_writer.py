from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from plexd.api import Receipt
from plexd.clock import SystemClock
from plexd_server.errors import StoreBusy, StoreClosed, StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.store import Report, Written
from plexd_server.store.journal.group_writer import GroupWriter
from support.points import NOW, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ScriptedDisk:
    """Commits once it is opened; fails for nodes called ``bad`` or ``odd``."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def commit(self, reports: Sequence[Report]) -> list[Written]:
        self.entered.release()
        assert self.open.wait(10)
        names = [report.node_id for report in reports]
        if "bad" in names:
            raise StoreError("cannot store a bad one")
        if "odd" in names:
            raise ZeroDivisionError("unforeseen")
        self.groups.append(names)
        return [Written(Receipt(len(report.points))) for report in reports]


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
) -> list[asyncio.Task[Written]]:
    """Have the first report in its commit and the others waiting behind it."""
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


async def test_a_bad_report_fails_alone(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    tasks = await start(writer, disk, "a", "b", "bad", "odd", "c")
    disk.open.set()

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [
        Written, Written, StoreError, StoreError, Written
    ]  # fmt: skip
    assert disk.groups == [["a"], ["b"], ["c"]]
    await asyncio.to_thread(writer.close)


async def test_a_full_queue_refuses_at_once_but_a_large_report_may_wait_alone(
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


async def test_a_cancelled_wait_undoes_no_write_and_hurts_no_other(
    disk: ScriptedDisk,
) -> None:
    writer = writing(disk, 100)
    first, second, third = await start(writer, disk, "a", "b", "c")
    second.cancel()
    disk.open.set()

    await asyncio.gather(first, third)

    assert disk.groups == [["a"], ["b", "c"]]
    await asyncio.to_thread(writer.close)


async def test_closing_writes_what_waits_and_refuses_later_reports(disk: ScriptedDisk) -> None:
    writer = writing(disk, 100)
    tasks = await start(writer, disk, "a", "b")
    closing = asyncio.create_task(asyncio.to_thread(writer.close))
    await asyncio.to_thread(wait_until_closed, writer)
    disk.open.set()
    await closing

    await asyncio.gather(*tasks)

    assert disk.groups == [["a"], ["b"]]
    with pytest.raises(StoreClosed):
        await writer.write(named("late"))


def wait_until_closed(writer: GroupWriter) -> None:
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer._closed, 10)


class ManualMonotonic(SystemClock):
    """Its monotonic clock shows the ``seconds`` that it was set to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_failure_is_logged_at_once_then_once_a_minute_then_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualMonotonic()
    faults = FaultLog("writing", clock)
    for seconds in (0, 1, 59, 60, 61):
        clock.seconds = seconds
        faults.failed(OSError("No space left on device"))
    assert faults.failing
    faults.worked()
    faults.worked()

    assert not faults.failing
    logged = [(vars(record)["failures"], record.message) for record in caplog.records]
    assert logged == [(1, "the store fails"), (4, "the store fails"), (5, "the store works again")]
    assert "No space left" in vars(caplog.records[0])["error"]
