"""A disk that fails at the n-th write, sync, read or open, once or until it is mended.

Every n of a scripted run: points go in, out, and through memory, and in the end each has arrived
once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool
from support.faulty_disk import FAULTS, FaultyDisk
from support.latency import latency_points as points
from support.receivers import StrictReceiver

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.spool import SpoolStatistics

_STRIDES = {"full": 5, "write": 5, "sync": 2, "read": 1, "open": 1}


def balanced(found: SpoolStatistics) -> SpoolStatistics:
    assert found.appended == found.waiting + found.acknowledged + found.lost, found
    return found


async def run(directory: Path, disk: FaultyDisk) -> SpoolStatistics:
    """Five cycles on a failing disk, one on a mended one; everything has arrived."""
    clock, receiver = ManualClock(), StrictReceiver()
    async with DiskSpool(directory, max_bytes=2**20, clock=clock) as spool:
        for cycle in range(5):
            await spool.append(points(7, 7 * cycle))
            balanced(spool.statistics())
            await clock.advance(9)
            await spool.seal(3)
            await receiver.drain(spool, 2)
            balanced(spool.statistics())
        disk.heal()
        await clock.advance(20)
        await spool.append(points(7, 35))
        assert not spool.statistics().degraded
        await spool.seal(3)
        await receiver.drain(spool)
    assert len(receiver.points) == 42
    return balanced(spool.statistics())


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


async def test_a_disk_that_fails_is_told_once_and_so_is_its_recovery(
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
