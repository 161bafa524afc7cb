"""The delivery after every answer: what waits how long, what is logged, what is lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import APIError, LatencyResult, MetricBatch, MetricPoint, TLSError
from plexd.metrics import Config, MemorySpool
from plexd.metrics.delivery import Delivery
from plexd.metrics.testing import ManualClock, RecordingReporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NODE = "node-1"
COLLECT, REPORT = 15.0, 60.0
LOGGER = logging.getLogger("plexd.test.delivery")
PLENTY = 2**40


class Rig:
    """A delivery on a clock moved by hand, over a spool that only the test fills."""

    def __init__(
        self,
        reporter: RecordingReporter,
        *,
        random: Callable[[], float] = lambda: 0.5,
        spool: MemorySpool | None = None,
        **changes: Any,  # fields of the configuration
    ) -> None:
        self.clock = ManualClock()
        self.reporter = reporter
        self.spool = spool or MemorySpool(max_bytes=PLENTY, clock=self.clock)
        self.delivery = Delivery(
            Config(**changes), self.spool, reporter, NODE, LOGGER, self.clock, random=random
        )
        self.made = 0

    async def collect(self, count: int) -> None:
        points = [
            MetricPoint(timestamp=self.clock.now(), group="latency", data=LatencyResult(f"p{i}", i))
            for i in range(self.made, self.made + count)
        ]
        self.made += count
        await self.spool.append(points)
        self.delivery.points_arrived(count)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        task = asyncio.create_task(self.delivery.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.delivery.flush(0)

    async def watch(self, seconds: float, step: float = 0.5) -> list[float]:
        """Advance, and return when (on the step's grid) each attempt was made."""
        moments: list[float] = []
        for _ in range(int(seconds / step)):
            before = len(self.reporter.attempts)
            await self.clock.advance(step)
            moments += [self.clock.monotonic()] * (len(self.reporter.attempts) - before)
        return moments

    def numbers(self) -> list[int]:
        """The points that were accepted, by the number they were made with."""
        return [point.data.rtt_nano for point in self.reporter.points]  # type: ignore[union-attr]  # latency


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == LOGGER.name]


class TestRetries:
    async def test_each_failure_doubles_the_wait_and_a_success_resets_it(self) -> None:
        rig = Rig(RecordingReporter(*[OSError("down")] * 6))
        async with rig.running():
            await rig.collect(1)
            moments = await rig.watch(120)
            gaps = [b - a for a, b in itertools.pairwise(moments)]
            assert gaps == pytest.approx([0.5, 1, 2, 4, 8, 16], abs=0.5)
            assert rig.delivery.statistics().attempt == 0
            rig.reporter.failures.append(OSError("down again"))
            await rig.collect(100)
            moments = await rig.watch(5)
            assert moments[1] - moments[0] == pytest.approx(0.5, abs=0.5)

    @pytest.mark.parametrize(("asked", "least", "most"), [(30, 30, 31.5), (0, 1, 2.0)])
    async def test_a_wait_asked_for_is_kept(self, asked: float, least: float, most: float) -> None:
        rig = Rig(RecordingReporter(APIError(503, "busy", timedelta(seconds=asked))))
        async with rig.running():
            await rig.collect(1)
            first, second = await rig.watch(REPORT + 60)
        assert least <= second - first <= most + 0.5

    async def test_ticks_and_full_batches_do_not_cut_a_wait_short(self) -> None:
        rig = Rig(RecordingReporter(APIError(503, "busy", timedelta(hours=1))))
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(0)
            for _ in range(int(3600 / COLLECT) - 1):
                await rig.collect(100)
                await rig.clock.advance(COLLECT)
            assert len(rig.reporter.attempts) == 1
            await rig.clock.advance(600)
            assert rig.spool.statistics().waiting == 0

    async def test_what_was_collected_meanwhile_follows_at_once(self) -> None:
        rig = Rig(RecordingReporter(*[OSError("down")] * 5))
        async with rig.running():
            for _ in range(6):
                await rig.collect(10)
                await rig.clock.advance(COLLECT)
            assert rig.spool.statistics().waiting <= 20
            assert rig.numbers() == list(range(len(rig.numbers())))

    async def test_a_reporter_that_never_returns_is_left_after_ten_minutes(self) -> None:
        rig = Rig(RecordingReporter())
        rig.reporter.gate.clear()
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(599)
            assert len(rig.reporter.attempts) == 1
            await rig.clock.advance(3)
            assert len(rig.reporter.attempts) == 2
            assert rig.delivery.statistics().failures == 1
            rig.reporter.gate.set()
            await rig.clock.advance(1)
        assert len(rig.reporter.points) == 100
        assert len({str(batch.name) for batch in rig.reporter.attempts}) == 1

    async def test_the_statistics_say_why_nothing_is_sent(self) -> None:
        rig = Rig(RecordingReporter(OSError("down"), APIError(401, "unknown token")))
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(0)
            s = rig.delivery.statistics()
            assert (s.attempt, s.held, s.next_attempt_seconds) == (1, "", 0.5)
            await rig.clock.advance(1)
            s = rig.delivery.statistics()
            assert (s.attempt, s.held) == (2, "api: HTTP 401: unknown token")
            assert s.next_attempt_seconds == pytest.approx(209.5)
            await rig.clock.advance(300)
            s = rig.delivery.statistics()
            assert (s.attempt, s.held, s.next_attempt_seconds) == (0, "", 0)
            assert (s.batches, s.points, s.failures) == (1, 100, 2)


class TestHolds:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "error",
        [
            *(APIError(status, "no") for status in (301, 401, 403, 404, 405, 409, 100, 418)),
            TLSError("certificate not accepted: expired"),
        ],
        ids=str,
    )
    async def test_everything_is_kept_and_probed_every_few_minutes(self, error: Exception) -> None:
        rig = Rig(RecordingReporter(*[error] * 20))
        async with rig.running():
            await rig.collect(250)
            moments = await rig.watch(3600, step=5)
            assert 12 <= len(moments) <= 20
            assert all(b - a >= 115 for a, b in itertools.pairwise(moments))
            assert rig.spool.statistics().lost == 0
            await rig.clock.advance(3600)
        assert rig.numbers() == list(range(250))

    async def test_the_log_says_once_what_to_do_and_once_that_it_is_over(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        rig = Rig(RecordingReporter(*[APIError(401, "unknown token")] * 2), random=lambda: 0)
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(290)
        warned, accepted = said(caplog)
        assert (warned["msg"], accepted["msg"]) == (
            "metrics report failed",
            "metrics report accepted",
        )
        assert warned["error"] == "api: HTTP 401: unknown token"
        assert "credential" in warned["hint"]

    async def test_a_hold_is_logged_though_another_failure_was_logged_just_before(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = Rig(RecordingReporter(OSError("down"), APIError(403, "not yours"), TLSError("who")))
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(290)
        assert [record["error"] for record in said(caplog)] == [
            "down",
            "api: HTTP 403: not yours",
            "who",
        ]

    async def test_a_control_plane_that_fails_every_other_time_does_not_fill_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        class Flapping(RecordingReporter):
            async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
                if len(self.attempts) % 2 == 0:
                    self.failures.append(OSError("down"))
                await super().report_metrics(node_id, batch)

        rig = Rig(Flapping())
        async with rig.running():
            for _ in range(40):
                await rig.collect(100)
                await rig.clock.advance(5)
        assert len(rig.reporter.batches) == 40
        assert [record["msg"] for record in said(caplog)] == [
            "metrics report failed",
            "metrics report accepted",
        ]


class Narrow(RecordingReporter):
    """Accepts two points at a time, and fails in other ways as ``trouble`` says."""

    def __init__(self, **trouble: Exception) -> None:
        super().__init__()
        self.trouble = trouble
        self.effect: Counter[int] = Counter()
        self.mark = -1

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
        self.attempts.append(batch)
        if len(batch) > 2:
            raise APIError(413, "too large")
        assert batch.name is not None
        if (error := self.trouble.pop(f"at_{batch.name.first}", None)) is not None:
            raise error
        # What a server does with its high-water mark: pieces below it change nothing.
        self.node_ids.append(node_id)
        self.batches.append(batch)
        if batch.name.first > self.mark:
            self.mark = batch.name.first
            self.effect.update(p.data.rtt_nano for p in batch)  # type: ignore[union-attr]  # latency


class TestPieces:
    @pytest.mark.parametrize("place", [1, 3, 5, 7, 9])
    async def test_a_piece_that_fails_is_sent_again_and_nothing_doubled(self, place: int) -> None:
        reporter = Narrow(**{f"at_{place}": OSError("reset")})
        rig = Rig(reporter)
        async with rig.running():
            await rig.collect(9)
            await rig.clock.advance(REPORT + 5)
        assert reporter.effect == Counter(range(9))
        places = [batch.name.first for batch in reporter.batches if batch.name is not None]
        assert places == [1, 3, 5, 7, 9]
        # Two that are too large show how much fits, and one fails.
        assert len(reporter.attempts) == 2 + 1 + len(places)
        assert rig.spool.statistics().acknowledged == 9

    async def test_a_point_too_large_by_itself_becomes_a_dead_letter_with_the_reason(self) -> None:
        class Tiny(RecordingReporter):
            async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
                if any(p.data.rtt_nano == 3 for p in batch):  # type: ignore[union-attr]  # latency
                    raise APIError(413, "at most a byte")
                await super().report_metrics(node_id, batch)

        rig = Rig(Tiny())
        async with rig.running():
            await rig.collect(8)
            await rig.clock.advance(REPORT)
        assert rig.numbers() == [0, 1, 2, 4, 5, 6, 7]
        (letter,) = await rig.spool.dead_letters()
        assert letter.reason == "api: HTTP 413: at most a byte"
        assert letter.batch.name is not None
        assert (letter.batch.name.first, letter.batch.name.points) == (4, 1)

    async def test_after_the_pieces_of_one_batch_the_next_is_tried_whole(self) -> None:
        rig = Rig(Narrow(), batch_size=4)
        async with rig.running():
            await rig.collect(9)
            await rig.clock.advance(REPORT)
        sizes = [len(batch) for batch in rig.reporter.attempts]
        assert sizes == [4, 2, 2, 4, 2, 2, 1]

    async def test_a_control_plane_that_accepts_nothing_gets_requests_at_the_pace_as_well(
        self,
    ) -> None:
        class Nothing(RecordingReporter):
            async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:
                self.attempts.append(batch)
                raise APIError(413, f"{node_id} sends too much")

        rig = Rig(Nothing())
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(10)
            assert len(rig.reporter.attempts) <= 111
            await rig.clock.advance(30)
        assert rig.spool.statistics().refused == 100


class TestEnd:
    @pytest.mark.parametrize("error", [OSError("down"), APIError(401, "unknown")])
    async def test_a_control_plane_that_asked_for_a_pause_gets_no_request(
        self, error: Exception
    ) -> None:
        rig = Rig(RecordingReporter(error))
        async with rig.running():
            await rig.collect(100)
            await rig.clock.advance(0.1)
        assert len(rig.reporter.attempts) == 1
        assert rig.spool.statistics().waiting == 100

    async def test_the_last_round_does_not_keep_the_pace(self) -> None:
        rig = Rig(RecordingReporter(OSError("down")))
        async with rig.running():
            await rig.collect(5000)
            await rig.clock.advance(1)
            assert 0 < len(rig.reporter.batches) < 20
        # The last round had no time at all, and still its report under way was let finish.
        flushed = asyncio.create_task(rig.delivery.flush(5))
        await rig.clock.advance(0.1)
        await flushed
        assert rig.numbers() == list(range(5000))


class TestOutage:
    @pytest.mark.slow
    async def test_a_day_without_a_control_plane_at_50_peers_is_delivered_exactly(self) -> None:
        cycle = 102  # two points a peer, and two of the node
        rig = Rig(RecordingReporter(*[OSError("refused")] * 100_000))
        async with rig.running():
            for _ in range(86_400 // 60):
                for _ in range(4):
                    await rig.collect(cycle)
                await rig.clock.advance(60)
            failed = len(rig.reporter.attempts)
            rig.reporter.failures.clear()
            recovered = rig.clock.monotonic()
            while rig.spool.statistics().waiting > cycle:
                await rig.collect(cycle)
                await rig.clock.advance(COLLECT)
            minutes = (rig.clock.monotonic() - recovered) / 60
        assert rig.numbers() == list(range(len(rig.numbers())))
        assert len(rig.numbers()) >= 86_400 // 15 * cycle
        assert rig.spool.statistics().lost == 0
        # 5,875 batches at ten a second are ten minutes; up to five more pass before the first.
        assert 9 < minutes < 17
        # A day of probing is at most what full jitter makes of five minutes.
        assert failed < 86_400 / 100


@pytest.mark.slow
async def test_production_above_ten_batches_a_second_is_kept_up_with() -> None:
    rig = Rig(RecordingReporter(), collect_interval=timedelta(seconds=5), batch_size=10)
    async with rig.running():
        for _ in range(30):
            await rig.collect(1005)  # 20 batches a second
            await rig.clock.advance(5)
        assert rig.spool.statistics().waiting <= 1005
    assert len({batch.name for batch in rig.reporter.batches if batch.name}) >= 29 * 100
