"""A disk that fails at the n-th write, sync, read or open, once or until it is repaired.

Every n of a scripted run: points go in, out, and through memory, and in the end each has arrived
once.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import apsw
import pytest

from plexd.api import Predecessor
from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, Refusal
from spool.balance import balanced
from support.faulty_disk import FAULTS, BadSector, FaultyDisk
from support.latency import latency_points as points
from support.receivers import StrictReceiver

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.spool import SpoolStatistics

_STRIDES = {"full": 5, "write": 5, "sync": 2, "read": 1, "open": 1}


async def run(directory: Path, disk: FaultyDisk) -> SpoolStatistics:
    """Five cycles on a failing disk, one on a mended one; everything has arrived."""
    clock, receiver = ManualClock(), StrictReceiver()
    async with DiskSpool(directory, max_bytes=2**20, clock=clock) as spool:
        for cycle in range(5):
            await spool.append(points(7, 7 * cycle))
            balanced(spool.statistics())
            await clock.advance(9)
            await receiver.drain(spool, 2, limit=3)
            balanced(spool.statistics())
        disk.heal()
        await clock.advance(20)
        await spool.append(points(7, 35))
        assert not spool.statistics().degraded
        await receiver.drain(spool, limit=60)
    assert (len(receiver.points), receiver.lost) == (42, 0)
    return balanced(spool.statistics())


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_wherever_the_disk_fails_every_point_arrives_once(
    fault: str, lasting: bool, fast_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with FaultyDisk(fault, 0) as disk:
        await run(fast_path / "counted", disk)
        calls = disk.count
    assert calls
    for at in range(1, calls + 1, _STRIDES[fault]):
        with FaultyDisk(fault, at, lasting=lasting) as disk:
            found = await run(fast_path / f"{at}", disk)
        assert (found.appended, found.lost, found.waiting) == (42, 0, 0), (at, found)


@pytest.mark.parametrize("fault", ["full", "write", "sync"])
async def test_what_is_on_a_disk_that_fails_is_delivered_before_what_is_in_memory(
    fault: str, fast_path: Path
) -> None:
    clock, receiver = ManualClock(), StrictReceiver()
    with FaultyDisk(fault, 0) as disk:
        async with DiskSpool(fast_path / "spool", clock=clock) as spool:
            await spool.append(points(7))
            await receiver.drain(spool, 1, limit=3)
            disk.fail_while(lambda: True)
            await spool.append(points(7, 7))  # it may be on the disk, and waits for it
            await spool.append(points(7, 14))
            refused = await spool.head(2)
            assert refused is not None
            receiver.reject(refused)
            await spool.set_aside(Refusal(refused, "no"))
            await receiver.drain(spool, limit=3)
            assert spool.statistics().degraded
            assert balanced(spool.statistics()).waiting == 7
            assert len(receiver.points) == 12
            disk.heal()
            await clock.advance(16)
            await spool.append(points(1, 21))
            await receiver.drain(spool)
            found = balanced(spool.statistics())
    assert (found.acknowledged, found.refused, found.waiting, found.lost) == (20, 2, 0, 2)
    assert len(receiver.points) == 20


@pytest.mark.parametrize("limit", [1, 9], ids=["in part", "whole"])
async def test_what_was_delivered_from_memory_is_what_the_next_life_comes_after(
    limit: int, fast_path: Path
) -> None:
    clock, receiver = ManualClock(), StrictReceiver()
    with FaultyDisk("write", 0) as disk:
        async with DiskSpool(fast_path / "spool", clock=clock) as spool:
            await spool.append(points(3))
            await receiver.drain(spool, 1, limit=2)
            disk.fail_while(lambda: True)
            await receiver.drain(spool)
            await spool.append(points(2, 3))
            last = await spool.head(limit)
            assert last is not None
            await spool.acknowledge(receiver.accept(last))
            assert spool.statistics().degraded
            disk.heal()
        async with DiskSpool(fast_path / "spool", clock=clock) as spool:
            await spool.append(points(1, 5))
            await receiver.drain(spool, 2 - len(last), limit=9)
            following = await spool.head(9)
            assert following is not None
            assert last.name is not None
            assert following.after == Predecessor(last.name.epoch, 2)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", ["full", "sync"])
async def test_wherever_the_return_to_the_disk_fails_every_point_arrives_once(
    fault: str, lasting: bool, fast_path: Path
) -> None:
    for at in range(1, 25):
        clock, receiver, calls = ManualClock(), StrictReceiver(), itertools.count(1)
        due = range(at, 1000 if lasting else at + 1)
        with FaultyDisk(fault, 0) as disk:
            async with DiskSpool(fast_path / f"{at}", clock=clock) as spool:
                await spool.append(points(3))
                disk.fail_while(lambda: True)
                for first in (3, 6):
                    await spool.append(points(3, first))
                    await receiver.drain(spool, 1, limit=2)
                disk.fail_while(lambda calls=calls, due=due: next(calls) in due)  # type: ignore[misc]  # their defaults bind them
                for first in (9, 12):
                    await clock.advance(16)
                    await spool.append(points(3, first))
                    await receiver.drain(spool, 1, limit=2)
                disk.heal()
                await clock.advance(16)
                await spool.append(points(3, 15))
                await receiver.drain(spool)
                found = balanced(spool.statistics())
        assert (found.appended, found.lost, found.waiting, found.degraded) == (18, 0, 0, ""), at
        assert (len(receiver.points), receiver.lost) == (18, 0), at


async def test_a_disk_that_fails_is_logged_once_and_so_is_its_recovery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    with FaultyDisk("full", 1, lasting=True) as disk:
        async with DiskSpool(tmp_path / "spool", clock=clock) as spool:
            for _ in range(3):
                await spool.append(points(1))
                await clock.advance(16)
            assert spool.statistics().degraded == "the disk is full"
            disk.heal()
            await spool.append(points(1))
            assert not spool.statistics().degraded
    events = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "plexd.spool"]
    assert events == [("WARNING", "spool degraded"), ("INFO", "spool recovered")]


def place_of(directory: Path, batch: int, offset: int) -> int:
    """Where in the database ``batch`` has its bytes from ``offset`` on."""
    connection = apsw.Connection(str(directory / "spool.db"))
    bodies = [body for (body,) in connection.execute("SELECT body FROM log ORDER BY id")]
    connection.close()
    part = bodies[batch][offset : offset + 80]
    return (directory / "spool.db").read_bytes().rindex(part)


@pytest.mark.parametrize("offset", [5000, 0], ids=["its body", "its page in the table"])
@pytest.mark.parametrize("batch", [0, 4, 9])
async def test_a_place_that_cannot_be_read_any_more_costs_the_row_on_it(
    batch: int, offset: int, fast_path: Path
) -> None:
    directory, clock, receiver = fast_path / "spool", ManualClock(), StrictReceiver()
    async with DiskSpool(directory, clock=clock) as spool:
        for number in range(10):
            await spool.append(points(60, 60 * number))
    with BadSector(directory / "spool.db", place_of(directory, batch, offset)) as disk:
        async with DiskSpool(directory, clock=clock) as spool:
            for cycle in range(4):
                await receiver.drain(spool, limit=60)
                await clock.advance(20)
                await spool.append(points(1, 1000 + cycle))
            await receiver.drain(spool, limit=60)
            found = balanced(spool.statistics())
    assert 0 < disk.struck < 10
    assert (found.appended, found.damaged, found.waiting, found.degraded) == (604, 60, 0, "")
    lost = {point.peer_id for point in points(60, 60 * batch)}
    assert set(receiver.points).isdisjoint(lost)
    assert len(receiver.points) == 544
    assert receiver.lost == 60


async def test_a_place_that_becomes_unreadable_under_the_head_delays_nothing(
    fast_path: Path,
) -> None:
    directory, clock, receiver = fast_path / "spool", ManualClock(), StrictReceiver()
    async with DiskSpool(directory, clock=clock) as spool:
        for number in range(10):
            await spool.append(points(60, 60 * number))
    with BadSector(directory / "spool.db", place_of(directory, 0, 5000)) as disk:
        disk.is_good = True
        async with DiskSpool(directory, clock=clock) as spool:
            head = await spool.head(60)
            assert head is not None
            name = receiver.accept(head)
            for number in range(10, 40):  # which push its pages out of the cache
                await spool.append(points(60, 60 * number))
            disk.is_good = False
            await spool.acknowledge(name)
            await receiver.drain(spool, limit=60)
            found = balanced(spool.statistics())
    assert disk.struck > 0
    # What had arrived may count as damaged: more is reported then than was lost, never less.
    assert (found.appended, found.waiting, found.degraded) == (2400, 0, "")
    assert len(receiver.points) == 2400
