"""What is lost in a spool is logged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, SpoolStatistics
from plexd.spool.losses import LossLog
from support.latency import latency_points

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LOGGER = logging.getLogger("test.losses")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    return [(vars(r)["reason"], vars(r)["points"], vars(r)["waiting"]) for r in caplog.records]


async def test_a_loss_is_logged_at_once_with_its_reason_and_then_every_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, now = ManualClock(), SpoolStatistics(evicted=7)
    log = LossLog(lambda: now, LOGGER, clock)
    log.look()
    assert not caplog.records  # it was lost before
    for evicted in (10, 15, 20):
        now = SpoolStatistics(evicted=evicted, waiting=50)
        log.look()
        await clock.advance(100)
    assert lines(caplog) == [("evicted", 3, 50)]
    await clock.advance(100)
    log.look()
    assert lines(caplog) == [("evicted", 3, 50), ("evicted", 10, 50)]


async def test_each_reason_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    now = SpoolStatistics()
    log = LossLog(lambda: now, LOGGER, ManualClock())
    now = SpoolStatistics(evicted=1, expired=2, damaged=3, clashed=4, refused=5)
    log.look()
    assert lines(caplog) == [
        ("evicted", 1, 0),
        ("expired", 2, 0),
        ("damaged", 3, 0),
        ("clashed", 4, 0),
    ]


async def test_a_spool_of_its_own_logs_what_it_loses_in_this_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    for _ in range(2):
        async with DiskSpool(tmp_path, max_bytes=2**20, clock=clock, logger=LOGGER) as spool:
            for number in range(30):
                await spool.append(latency_points(500, 500 * number))
            assert spool.statistics().evicted > 0
    (first, second) = [vars(record) for record in caplog.records]
    assert (first["msg"], first["reason"]) == ("points dropped", "evicted")
    assert 0 < second["points"] <= 500
