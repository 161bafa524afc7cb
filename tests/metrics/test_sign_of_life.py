"""Once an hour a pipeline that is well says so."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from plexd.metrics import Config, Manager, MemorySpool
from plexd.metrics.testing import ManualClock, RecordingReporter, ScriptedCollector
from support.latency import latency_points

if TYPE_CHECKING:
    import pytest

LOGGER = logging.getLogger("test.life")
HOUR = 3600.0


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    fields = ("collected", "delivered", "waiting", "lost")
    alive = [r for r in caplog.records if r.getMessage() == "metrics pipeline alive"]
    return [{name: vars(record)[name] for name in fields} for record in alive]


def pipeline(clock: ManualClock, reporter: RecordingReporter, points: int) -> Manager:
    """Collects so many points in five minutes; up to a hundred kilobytes of them may wait."""
    collections = [latency_points(points, points * n) for n in range(50)]
    config = Config(collect_interval=timedelta(minutes=5), report_interval=timedelta(minutes=5))
    spool = MemorySpool(max_bytes=100_000, clock=clock)
    collectors = [ScriptedCollector(*collections)]
    return Manager(config, collectors, reporter, "n1", LOGGER, spool=spool, clock=clock)


async def end(task: asyncio.Task[None], clock: ManualClock) -> None:
    task.cancel()
    await clock.advance(10)
    assert task.cancelled()


async def test_each_hour_has_one_line_with_what_was_done_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    task = asyncio.create_task(pipeline(clock, RecordingReporter(), 50).run())
    await clock.advance(HOUR - 1)
    assert lines(caplog) == []
    await clock.advance(30)
    (first,) = lines(caplog)
    assert first["collected"] == sum(int(str(first[name])) for name in ("delivered", "waiting"))
    await clock.advance(HOUR)
    _, second = lines(caplog)
    rest = {"waiting": first["waiting"], "lost": 0}
    assert second == {"collected": 600, "delivered": 600} | rest
    await end(task, clock)


async def test_what_waits_and_what_was_lost_adds_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock, reporter = ManualClock(), RecordingReporter(*[OSError("down")] * 1000)
    manager = pipeline(clock, reporter, 500)
    task = asyncio.create_task(manager.run())
    await clock.advance(3 * HOUR + 30)
    total = {"collected": 0, "delivered": 0, "lost": 0}
    for line in lines(caplog):
        total = {name: total[name] + int(str(line[name])) for name in total}
        assert total["collected"] == int(str(line["waiting"])) + total["lost"]
        assert int(str(line["lost"])) > 1000
    assert len(lines(caplog)) == 3
    await end(task, clock)


async def test_a_step_of_the_wall_clock_makes_no_line_and_costs_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    task = asyncio.create_task(pipeline(clock, RecordingReporter(), 1).run())
    await clock.advance(10)
    clock.step(timedelta(days=1))
    await clock.advance(10)
    assert lines(caplog) == []
    clock.step(timedelta(days=-2))
    await clock.advance(HOUR)
    assert len(lines(caplog)) == 1
    await end(task, clock)


async def test_a_pipeline_that_is_disabled_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await Manager(Config(enabled=False), [], RecordingReporter(), "n1", LOGGER).run()
    assert lines(caplog) == []
