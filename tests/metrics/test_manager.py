"""The manager against every row of the seed's "Error Handling" table and the design's decisions."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import APIError, LatencyResult, MetricPoint
from plexd.metrics import Config, LatencyCollector, Manager, MemorySpool
from plexd.metrics.delivery import spread
from plexd.metrics.testing import (
    ManualClock,
    ManualPeers,
    RecordingReporter,
    ScriptedCollector,
    ScriptedPinger,
    system_point,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from plexd.api import BatchName, MetricBatch

NODE = "node-1"
COLLECT, REPORT = 15.0, 60.0
FIRST_REPORT = spread(NODE) * REPORT


def config(**changes: Any) -> Config:
    return Config(**{"batch_size": 100, **changes})


def latencies(clock: ManualClock, count: int, first: int = 0) -> list[MetricPoint]:
    return [
        MetricPoint(
            timestamp=clock.now(),
            group="latency",
            peer_id=f"peer-{i}",
            data=LatencyResult(f"peer-{i}", i),
        )
        for i in range(first, first + count)
    ]


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(manager.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def stop(task: asyncio.Task[None], clock: ManualClock, grace: float = 10) -> None:
    task.cancel()
    await clock.advance(grace)
    with pytest.raises(asyncio.CancelledError):
        await task


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(r.levelno, r.getMessage()) for r in caplog.records if r.name.startswith("plexd")]


class TestRun:
    async def test_metrics_disabled_returns_at_once_and_says_so(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        collector = ScriptedCollector()
        manager = Manager(config(enabled=False), [collector], RecordingReporter(), NODE)
        await manager.run()
        assert collector.started == 0
        assert events(caplog) == [(logging.INFO, "metrics disabled")]
        assert caplog.records[0].component == "metrics"  # type: ignore[attr-defined]  # extra

    async def test_the_first_collection_is_at_once_and_the_next_ones_on_the_grid(self) -> None:
        clock = ManualClock()
        collector = ScriptedCollector([system_point(clock.now())])
        async with running(Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)):
            await clock.advance(0)
            assert collector.started == 1
            await clock.advance(COLLECT * 3)
            assert collector.started == 4

    async def test_points_are_reported_at_the_nodes_own_moment_and_then_every_interval(
        self,
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        collector = ScriptedCollector([system_point(clock.now())])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(FIRST_REPORT - 0.001)
            assert reporter.batches == []
            await clock.advance(0.002)
            assert len(reporter.batches) == 1
            await clock.advance(REPORT)
            assert [len(batch) for batch in reporter.batches][1:] == [4]
            assert set(reporter.node_ids) == {NODE}

    async def test_the_first_success_is_logged_and_the_first_after_a_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        clock = ManualClock()
        reporter = RecordingReporter()
        collector = ScriptedCollector([system_point(clock.now())])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 3)
            reporter.failures.append(OSError("refused"))
            await clock.advance(REPORT * 2)
        logged = [r.getMessage() for r in caplog.records]
        assert logged == [
            "metrics report accepted",
            "metrics report failed",
            "metrics report accepted",
        ]

    async def test_collecting_goes_on_while_a_report_hangs(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        reporter.gate.clear()
        collector = ScriptedCollector([system_point(clock.now())])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 2)
            assert len(reporter.attempts) == 1
            assert collector.started == 1 + int(REPORT * 2 // COLLECT)
            reporter.gate.set()
            await clock.advance(REPORT)
            assert len(reporter.points) > 8

    async def test_nodes_spread_their_reports_over_the_interval(self) -> None:
        moments = sorted(spread(f"node-{i}") for i in range(1000))
        assert 0 <= moments[0] < 0.01
        assert 0.99 < moments[-1] < 1
        assert max(b - a for a, b in itertools.pairwise(moments)) < 0.02


class TestBatches:
    async def test_a_full_batch_is_reported_before_the_interval_is_over(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        collector = ScriptedCollector(latencies(clock, 40))
        settings = config(report_interval=timedelta(days=1))
        async with running(Manager(settings, [collector], reporter, NODE, clock=clock)):
            await clock.advance(COLLECT * 1.5)
            assert reporter.batches == []
            await clock.advance(COLLECT)
            assert [len(batch) for batch in reporter.batches] == [100, 20]

    async def test_batches_never_exceed_the_batch_size(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        points = latencies(clock, 2_000)
        settings = config(batch_size=7, report_interval=timedelta(days=1))
        collector = ScriptedCollector(points, [])
        async with running(Manager(settings, [collector], reporter, NODE, clock=clock)):
            await clock.advance(COLLECT)
        assert max(len(batch) for batch in reporter.batches) == 7
        assert reporter.points == points

    async def test_an_empty_buffer_is_not_reported(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        async with running(Manager(config(), [ScriptedCollector([])], reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 3)
        assert reporter.attempts == []


class TestFailures:
    async def test_collector_returns_error_is_logged_and_the_others_go_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        bad = ScriptedCollector([OSError("no such device")])
        good = ScriptedCollector([system_point(clock.now())])
        manager = Manager(config(), [bad, good], reporter, NODE, clock=clock)
        async with running(manager):
            await clock.advance(REPORT + COLLECT)
        assert len(reporter.points) >= 4
        assert bad.started == good.started
        assert events(caplog) == [(logging.WARNING, "collector failed")]
        record = caplog.records[0]
        assert (record.component, record.error) == (  # type: ignore[attr-defined]  # extra
            "metrics",
            "no such device",
        )
        assert record.collector == "ScriptedCollector"  # type: ignore[attr-defined]  # extra
        assert manager.statistics().collectors[0].failures == bad.started

    async def test_a_collector_that_works_again_is_logged_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        clock = ManualClock()
        error = OSError("no such device")
        collector = ScriptedCollector([error], [error], [system_point(clock.now())])
        manager = Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)
        async with running(manager):
            await clock.advance(COLLECT * 5)
        about = [event for event in events(caplog) if "collector" in event[1]]
        expected = [(logging.WARNING, "collector failed"), (logging.INFO, "collector works again")]
        assert about == expected

    async def test_a_collector_that_is_cut_at_the_end_does_not_work_again(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        clock = ManualClock()
        collector = ScriptedCollector([OSError("no such device")], [asyncio.Event()])
        manager = Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)
        async with running(manager):
            await clock.advance(COLLECT * 1.5)
            assert collector.started == 2
        assert events(caplog) == [(logging.WARNING, "collector failed")]

    async def test_points_yielded_before_an_error_stay_collected(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        collector = ScriptedCollector([*latencies(clock, 2), OSError("gone")], [])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT)
        assert reporter.points == latencies_at(reporter, 2)

    async def test_all_collectors_fail_makes_the_report_a_no_op(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        collectors = [ScriptedCollector([OSError("broken")]) for _ in range(3)]
        async with running(Manager(config(), collectors, reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 2)
        assert reporter.attempts == []

    async def test_reporter_returns_error_retains_the_batch(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(OSError("refused"))
        collector = ScriptedCollector([system_point(clock.now())], [])
        spool = MemorySpool()
        manager = Manager(config(), [collector], reporter, NODE, clock=clock, spool=spool)
        async with running(manager):
            await clock.advance(FIRST_REPORT + 0.001)
            assert spool.statistics().waiting == 1
            await clock.advance(REPORT)
            assert len(reporter.batches) == 1
        first, second = reporter.attempts
        assert first.name == second.name
        assert first.to_json() == second.to_json()
        assert events(caplog) == [(logging.WARNING, "metrics report failed")]
        assert caplog.records[0].error == "refused"  # type: ignore[attr-defined]  # extra

    async def test_after_a_failure_full_batches_wait_for_the_backoff(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(*[OSError("down")] * 1000)
        collector = ScriptedCollector(latencies(clock, 100))
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(3600)
            # Ten attempts within the first 17 minutes at the latest, then one in 150 s on average.
            assert 10 <= len(reporter.attempts) <= 100
            assert len({str(batch.name) for batch in reporter.attempts}) == 1

    async def test_points_are_delivered_once_and_in_order_after_an_outage(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(*[OSError("down")] * 5)
        cycles = [latencies(clock, 30, first=30 * i) for i in range(20)]
        collector = ScriptedCollector(*cycles, [])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 10)
        assert reporter.points == [point for cycle in cycles for point in cycle]

    async def test_a_reporter_that_cancels_itself_has_failed(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(asyncio.CancelledError())
        collector = ScriptedCollector([system_point(clock.now())], [])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT * 2)
        assert len(reporter.points) == 1

    async def test_a_collector_that_cancels_itself_has_failed(self) -> None:
        clock = ManualClock()
        collector = ScriptedCollector([asyncio.CancelledError()])
        manager = Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(COLLECT * 2)
            assert not task.done()
            assert manager.statistics().collectors[0].failures == 3

    async def test_a_repeated_failure_is_logged_once_in_five_minutes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        collector = ScriptedCollector([OSError("broken")])
        async with running(Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)):
            await clock.advance(301)
        assert len(events(caplog)) == 2
        assert caplog.records[-1].suppressed == 19  # type: ignore[attr-defined]  # extra


def latencies_at(reporter: RecordingReporter, count: int) -> list[MetricPoint]:
    """The same points as `latencies` makes, with the stamp they were made with."""
    clock = ManualClock(reporter.points[0].timestamp)
    return latencies(clock, count)


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 415, 422])
    async def test_a_batch_that_is_rejected_for_good_does_not_delay_the_rest(
        self, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        clock = ManualClock()
        reporter = RecordingReporter(APIError(status, "point 3: data.rtt_nano"))
        collector = ScriptedCollector(latencies(clock, 10), latencies(clock, 5, first=10), [])
        spool = MemorySpool()
        settings = config(batch_size=10)
        manager = Manager(settings, [collector], reporter, NODE, clock=clock, spool=spool)
        async with running(manager):
            await clock.advance(REPORT * 2)
        assert reporter.points == latencies(ManualClock(), 5, first=10)
        assert (spool.statistics().refused, spool.statistics().acknowledged) == (10, 5)
        assert reporter.batches[0].dropped == 10
        assert caplog.records[0].getMessage() == "metrics report failed"
        assert caplog.records[0].refused == 10  # type: ignore[attr-defined]  # extra
        assert caplog.records[1].getMessage() == "metrics report accepted"
        assert caplog.records[1].points == 5  # type: ignore[attr-defined]  # extra
        assert manager.statistics().delivery.batches == 1

    async def test_a_batch_that_is_too_large_goes_in_halves(self) -> None:
        clock = ManualClock()

        class Narrow(RecordingReporter):
            async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
                if len(batch) > 2 or any(point.peer_id == "peer-6" for point in batch):
                    raise APIError(413, "too large")
                await super().report_metrics(node_id, batch)

        reporter = Narrow()
        spool = MemorySpool()
        collector = ScriptedCollector(latencies(clock, 9), [])
        manager = Manager(config(), [collector], reporter, NODE, clock=clock, spool=spool)
        async with running(manager):
            await clock.advance(REPORT * 2)
        sent = [point.peer_id for point in reporter.points]
        assert sent == [f"peer-{i}" for i in range(9) if i != 6]
        names = [batch.name for batch in reporter.batches if batch.name is not None]
        assert len({name.epoch for name in names}) == 1
        assert [name.first for name in names] == [1, 3, 5, 8, 9]
        assert (spool.statistics().refused, spool.statistics().acknowledged) == (1, 8)

    @pytest.mark.parametrize("status", [302, 401, 403, 404, 409, 429, 500, 503])
    async def test_any_other_answer_keeps_the_batch(self, status: int) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(APIError(status, "not now"))
        collector = ScriptedCollector(latencies(clock, 3), [])
        async with running(Manager(config(), [collector], reporter, NODE, clock=clock)):
            await clock.advance(REPORT + 300)
        assert len(reporter.points) == 3


class FaultySpool(MemorySpool):
    """Fails once at each of ``calls``."""

    def __init__(self, *calls: str) -> None:
        super().__init__()
        self.calls = list(calls)

    def _fail(self, call: str) -> None:
        if call in self.calls:
            self.calls.remove(call)
            raise OSError(28, "No space left on device")

    async def append(self, points: Sequence[MetricPoint]) -> None:
        self._fail("append")
        await super().append(points)

    async def head(self, limit: int) -> MetricBatch | None:
        self._fail("head")
        return await super().head(limit)

    async def acknowledge(self, name: BatchName) -> None:
        self._fail("acknowledge")
        await super().acknowledge(name)


@pytest.mark.parametrize("call", ["append", "head", "acknowledge"])
async def test_a_spool_that_fails_once_costs_no_more_than_that(call: str) -> None:
    clock = ManualClock()
    reporter = RecordingReporter()
    spool = FaultySpool(call)
    collector = ScriptedCollector(*(latencies(clock, 1, first=i) for i in range(3)), [])
    manager = Manager(config(), [collector], reporter, NODE, clock=clock, spool=spool)
    async with running(manager) as task:
        await clock.advance(REPORT * 3)
        assert not task.done()
    expected = {f"peer-{i}" for i in range(1 if call == "append" else 0, 3)}
    assert {point.peer_id for point in reporter.points} == expected


async def test_two_collectors_of_one_class_have_a_warning_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    collectors = [ScriptedCollector([OSError("first")]), ScriptedCollector([OSError("second")])]
    async with running(Manager(config(), collectors, RecordingReporter(), NODE, clock=clock)):
        await clock.advance(1)
    assert {r.error for r in caplog.records} == {"first", "second"}  # type: ignore[attr-defined]  # extra


class TestUntrustedPoints:
    async def test_points_that_no_receiver_could_read_are_dropped_and_counted(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        good = latencies(clock, 2)
        nan = system_point(clock.now())
        broken = MetricPoint(
            timestamp=clock.now(),
            group="latency",
            data=LatencyResult("p", "fast"),  # type: ignore[arg-type]  # the point
        )
        naive = system_point(clock.now().replace(tzinfo=None))
        other = MetricPoint(timestamp=clock.now(), group="wind", data=nan.data)
        collector = ScriptedCollector([good[0], broken, naive, other, {"not": "a point"}, good[1]])
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager):
            await clock.advance(1)
        assert reporter.points == good
        assert manager.statistics().collectors[0].rejected == 4
        assert "point 1: data.rtt_nano" in caplog.records[0].error  # type: ignore[attr-defined]  # extra

    async def test_a_collector_out_of_control_is_stopped(self) -> None:
        clock = ManualClock()

        class Flood:
            async def collect(self) -> AsyncIterator[MetricPoint]:
                point = system_point(clock.now())
                while True:
                    yield point

        reporter = RecordingReporter()
        settings = config(batch_size=50_000, collect_interval=timedelta(hours=1))
        manager = Manager(settings, [Flood()], reporter, NODE, clock=clock)
        async with running(manager):
            await clock.advance(1)
        (statistics,) = manager.statistics().collectors
        assert (statistics.points, statistics.failures) == (100_000, 1)

    async def test_a_collector_that_is_no_generator_has_failed(self) -> None:
        class Wrong:
            def collect(self) -> Any:
                return [1, 2, 3]

        clock = ManualClock()
        manager = Manager(config(), [Wrong()], RecordingReporter(), NODE, clock=clock)
        async with running(manager):
            await clock.advance(1)
        assert manager.statistics().collectors[0].failures == 1


class TestSlowCollectors:
    async def test_a_hung_collector_is_cut_and_what_it_had_yielded_is_kept(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        hung = ScriptedCollector([*latencies(clock, 1), asyncio.Event()], [])
        other = ScriptedCollector([system_point(clock.now())])
        manager = Manager(config(), [hung, other], reporter, NODE, clock=clock)
        async with running(manager):
            await clock.advance(COLLECT * 2.5)
            assert hung.closed == 3
            assert other.started == 3
            await clock.advance(REPORT)
        assert [point.group for point in reporter.points].count("latency") == 1
        assert caplog.records[0].error == "cut after 15s"  # type: ignore[attr-defined]  # extra

    async def test_a_collector_never_overlaps_itself(self) -> None:
        clock = ManualClock()
        at_once = most = 0

        class Slow:
            async def collect(self) -> AsyncIterator[MetricPoint]:
                nonlocal at_once, most
                at_once += 1
                most = max(most, at_once)
                try:
                    await clock.sleep(40)
                    yield system_point(clock.now())
                finally:
                    at_once -= 1

        async with running(Manager(config(), [Slow()], RecordingReporter(), NODE, clock=clock)):
            await clock.advance(COLLECT * 10)
        assert most == 1

    async def test_a_collector_that_ignores_its_cancellation_is_left_running(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        release = asyncio.Event()
        started = 0

        class Stubborn:
            async def collect(self) -> AsyncIterator[MetricPoint]:
                nonlocal started
                started += 1
                yield system_point(clock.now())
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue

        reporter = RecordingReporter()
        manager = Manager(config(), [Stubborn()], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(COLLECT * 4)
            assert started == 1
            assert manager.statistics().collectors[0].missed >= 2
            assert len(reporter.points) == 1
            release.set()
            await clock.advance(COLLECT * 2)
            assert started >= 2
            release.clear()
            await stop(task, clock)
            release.set()
        assert {r.getMessage() for r in caplog.records} == {"collector failed"}

    async def test_a_pause_of_the_machine_is_one_gap_and_no_burst(self) -> None:
        clock = ManualClock()
        collector = ScriptedCollector([system_point(clock.now())])
        manager = Manager(config(), [collector], RecordingReporter(), NODE, clock=clock)
        async with running(manager):
            await clock.advance(1)
            clock._elapsed += 600
            await clock.advance(0.5)
            assert collector.started == 2
            assert manager.statistics().collectors[0].missed == 39


class TestShutdown:
    async def test_context_cancelled_flushes_what_is_left_and_raises(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        collector = ScriptedCollector(latencies(clock, 3))
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(0.001)
            assert reporter.batches == []
            await stop(task, clock)
        assert len(reporter.points) == 3

    async def test_context_cancelled_mid_collect_keeps_the_partial_latency_sweep(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        pinger = ScriptedPinger(held=["b"])
        collector = LatencyCollector(pinger, ManualPeers("a", "b", "c"), clock=clock)
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(0.001)
            await stop(task, clock)
        assert [point.peer_id for point in reporter.points] == ["a", "c"]

    async def test_a_report_under_way_is_finished_and_not_sent_twice(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        reporter.gate.clear()
        collector = ScriptedCollector(latencies(clock, 100))
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(1)
            task.cancel()
            await clock.advance(1)
            reporter.gate.set()
            await stop(task, clock)
        assert len(reporter.attempts) == len(reporter.batches) == 1

    async def test_the_flush_gives_up_when_the_grace_is_over(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        reporter.gate.clear()
        spool = MemorySpool()
        collector = ScriptedCollector(latencies(clock, 100))
        manager = Manager(config(), [collector], reporter, NODE, clock=clock, spool=spool)
        async with running(manager) as task:
            await clock.advance(1)
            task.cancel()
            await clock.advance(4.9)
            assert not task.done()
            await clock.advance(0.2)
            assert task.cancelled()
        assert spool.statistics().waiting == 100

    async def test_a_reporter_that_ignores_its_cancellation_does_not_hold_up_the_end(
        self,
    ) -> None:
        clock = ManualClock()
        release = asyncio.Event()

        class Stubborn(RecordingReporter):
            async def report_metrics(self, *_: object) -> None:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue

        collector = ScriptedCollector(latencies(clock, 100))
        async with running(Manager(config(), [collector], Stubborn(), NODE, clock=clock)) as task:
            await clock.advance(1)
            task.cancel()
            await clock.advance(6.5)
            assert task.cancelled()
            release.set()

    async def test_a_second_cancellation_cuts_the_flush_short(self) -> None:
        clock = ManualClock()
        reporter = RecordingReporter()
        reporter.gate.clear()
        collector = ScriptedCollector(latencies(clock, 100))
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(1)
            for _ in range(2):
                task.cancel()
                await clock.advance(0)
            assert task.cancelled()

    async def test_a_failing_flush_still_ends_with_the_cancellation(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        reporter = RecordingReporter(*[OSError("down")] * 9)
        collector = ScriptedCollector(latencies(clock, 3))
        manager = Manager(config(), [collector], reporter, NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(0.001)
            await stop(task, clock, grace=0)
        assert events(caplog) == [(logging.WARNING, "metrics report failed")]

    async def test_no_task_is_left_behind(self) -> None:
        before = asyncio.all_tasks()
        clock = ManualClock()
        collectors = [ScriptedCollector([asyncio.Event()]) for _ in range(3)]
        manager = Manager(config(), collectors, RecordingReporter(), NODE, clock=clock)
        async with running(manager) as task:
            await clock.advance(1)
            await stop(task, clock)
        assert asyncio.all_tasks() == before


async def test_every_point_is_accounted_for() -> None:
    clock = ManualClock()
    reporter = RecordingReporter(*[OSError("down")] * 3)
    collector = ScriptedCollector(latencies(clock, 130))
    manager = Manager(config(), [collector], reporter, NODE, clock=clock)
    async with running(manager):
        await clock.advance(REPORT * 5)
        s = manager.statistics()
        assert s.collectors[0].points == s.spool.appended
        assert s.spool.acknowledged == s.delivery.points == len(reporter.points)
        assert s.spool.appended == s.spool.waiting + s.spool.acknowledged + s.spool.lost


async def test_it_runs_on_real_time_as_well() -> None:
    reporter = RecordingReporter()
    clock = ManualClock()
    settings = Config(
        collect_interval=timedelta(milliseconds=5), report_interval=timedelta(milliseconds=20)
    )
    manager = Manager(settings, [ScriptedCollector([system_point(clock.now())])], reporter, NODE)
    async with running(manager), asyncio.timeout(10):
        await reporter.received(batches=3)
    statistics = manager.statistics()
    assert statistics.collectors[0].points == len(reporter.points) + statistics.spool.waiting
