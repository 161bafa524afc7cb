"""Losses on the node are events in its log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plexd.api import Receipt
from plexd.metrics import Config, Manager, MemorySpool
from plexd.metrics.testing import ManualClock, RecordingReporter, ScriptedCollector
from support.latency import latency_points
from support.points import NOW

if TYPE_CHECKING:
    import pytest

LOGGER = logging.getLogger("test.losses")


async def test_a_full_spool_is_logged_by_the_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    clock, reporter = ManualClock(), RecordingReporter(*[OSError("down")] * 100)
    collector = ScriptedCollector(*[latency_points(100, 100 * n) for n in range(20)])
    spool = MemorySpool(max_bytes=100_000, clock=clock)
    manager = Manager(Config(), [collector], reporter, "n1", LOGGER, spool=spool, clock=clock)
    await run(manager, clock, 200)
    dropped = [vars(r) for r in caplog.records if r.getMessage() == "points dropped"]
    assert [(line["reason"], line["component"]) for line in dropped] == [("evicted", "metrics")]


async def test_points_that_the_control_plane_rejects_are_logged_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    reporter = RecordingReporter(Receipt(2, rejected=1, reason="1 point is 25 h ahead"))
    collector = ScriptedCollector(latency_points(3), [])
    spool = MemorySpool(clock=clock)
    manager = Manager(Config(), [collector], reporter, "n1", LOGGER, spool=spool, clock=clock)
    await run(manager, clock, 70)
    (line,) = [vars(r) for r in caplog.records if r.getMessage() == "points rejected"]
    assert (line["rejected"], line["reason"]) == (1, "1 point is 25 h ahead")
    assert spool.statistics().acknowledged == 3
    assert manager.statistics().delivery.points == 2


async def test_what_is_rejected_between_two_lines_is_in_the_next_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    reporter = RecordingReporter(*[Receipt(1, rejected=1, reason="ahead")] * 100)
    collector = ScriptedCollector(latency_points(2))
    manager = Manager(Config(), [collector], reporter, "n1", LOGGER, clock=clock)
    await run(manager, clock, 700)
    lines = [vars(r)["rejected"] for r in caplog.records if r.getMessage() == "points rejected"]
    assert len(lines) == 3
    assert lines[0] == 1
    reports = len(reporter.attempts)
    assert reports - 5 <= sum(lines) <= reports


async def test_an_answer_cannot_reject_less_than_nothing() -> None:
    clock = ManualClock()
    reporter = RecordingReporter(Receipt(1, rejected=-5))
    collector = ScriptedCollector(latency_points(3), [])
    manager = Manager(Config(), [collector], reporter, "n1", LOGGER, clock=clock)
    await run(manager, clock, 70)
    assert manager.statistics().delivery.points == 3


async def test_another_machine_under_this_identity_is_an_error_and_the_points_are_renamed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    reporter = RecordingReporter(Receipt(0, clash=True, upto=9, newest=NOW))
    collector = ScriptedCollector(latency_points(3), latency_points(2, 3), [])
    spool = MemorySpool(clock=clock)
    manager = Manager(Config(), [collector], reporter, "n1", LOGGER, spool=spool, clock=clock)
    await run(manager, clock, 150)
    (line,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert line.getMessage() == "another machine reports as this node"
    first, *rest = [batch.name for batch in reporter.attempts if batch.name is not None]
    assert first.epoch not in {name.epoch for name in rest}
    # The stamps of the points count up from NOW on: the first is not newer.
    assert [point.peer_id for point in reporter.points] == [f"peer-{i}" for i in range(1, 5)]
    assert spool.statistics().clashed == 1


async def run(manager: Manager, clock: ManualClock, seconds: float) -> None:
    task = asyncio.create_task(manager.run())
    await clock.advance(seconds)
    task.cancel()
    await clock.advance(10)
    assert task.cancelled()
