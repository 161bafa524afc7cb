"""Two destinations: the platform decides, the local endpoint never does and never holds it up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, BatchName, MetricBatch, TLSError, TransportError, continuation
from plexd.metrics import MultiReporter
from plexd.metrics.testing import ManualClock, RecordingReporter
from support.points import EPOCH, EXAMPLE, NOW, latency_batch, named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plexd.api import Receipt

pytestmark = pytest.mark.usefixtures("nothing_leaks")

NODE = "node-1"
LOGGER = logging.getLogger("test.multi")
PLATFORM_ERROR = APIError(503, "platform down")
LOCAL_ERROR = TransportError("local down")
FAILED = "local metrics report failed"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def platform() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture
def local() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture
async def multi(
    platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> AsyncIterator[MultiReporter]:
    async with MultiReporter(platform, local, LOGGER, clock=clock) as opened:
        yield opened


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.name == LOGGER.name]


def start(multi: MultiReporter, batch: MetricBatch = EXAMPLE) -> asyncio.Task[Receipt | None]:
    return asyncio.create_task(multi.report_metrics(NODE, batch))


# Error semantics, row by row


async def test_both_succeed_and_nothing_is_logged(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await multi.report_metrics(NODE, EXAMPLE)
    assert platform.batches == local.batches == [EXAMPLE]
    assert platform.batches[0] is local.batches[0]
    assert platform.node_ids == local.node_ids == [NODE]
    assert warnings_of(caplog) == []


async def test_the_platforms_error_is_raised_though_the_local_succeeds(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    platform.failures = [PLATFORM_ERROR]
    with pytest.raises(APIError) as caught:
        await multi.report_metrics(NODE, EXAMPLE)
    assert caught.value is PLATFORM_ERROR
    assert local.batches == [EXAMPLE]
    assert warnings_of(caplog) == []


async def test_the_locals_error_is_a_warning_and_no_more(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local.failures = [LOCAL_ERROR]
    await multi.report_metrics(NODE, EXAMPLE)
    assert platform.batches == [EXAMPLE]
    (warning,) = warnings_of(caplog)
    assert (warning["levelname"], warning["message"]) == ("WARNING", FAILED)
    assert (warning["component"], warning["error"]) == ("metrics", "local down")


async def test_a_local_that_accepts_again_is_logged_once(
    multi: MultiReporter, local: RecordingReporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    local.failures = [LOCAL_ERROR, LOCAL_ERROR]
    for _ in range(4):
        await multi.report_metrics(NODE, EXAMPLE)
    failed, accepted = warnings_of(caplog)
    assert failed["message"] == FAILED
    assert accepted["message"] == "local metrics report accepted"
    assert accepted["points"] == len(EXAMPLE)


async def test_of_two_errors_the_platforms_is_raised_and_the_locals_a_warning(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    platform.failures, local.failures = [PLATFORM_ERROR], [LOCAL_ERROR]
    with pytest.raises(APIError) as caught:
        await multi.report_metrics(NODE, EXAMPLE)
    assert caught.value is PLATFORM_ERROR
    assert caught.value.__context__ is None
    assert [warning["error"] for warning in warnings_of(caplog)] == ["local down"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TLSError("unknown CA"), "unknown CA"),
        (APIError(500, "x"), "api: HTTP 500: x"),
        (ValueError("odd"), "odd"),
        (KeyError(), "KeyError"),
    ],
)
async def test_any_error_of_the_local_is_a_warning(
    multi: MultiReporter,
    local: RecordingReporter,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    local.failures = [error]
    await multi.report_metrics(NODE, EXAMPLE)
    assert [w["error"] for w in warnings_of(caplog)] == [reason]


async def test_the_same_warning_is_logged_once_in_five_minutes_with_the_number_left_out(
    multi: MultiReporter,
    local: RecordingReporter,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local.failures = [LOCAL_ERROR] * 7
    for _ in range(7):
        await multi.report_metrics(NODE, EXAMPLE)
        await clock.advance(50)
    logged = warnings_of(caplog)
    assert len(logged) == 2
    assert logged[1]["suppressed"] == 5


# Side by side


async def test_both_are_started_at_once(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    platform.gate.clear()
    local.gate.clear()
    report = start(multi)
    await clock.advance(0)
    assert len(platform.attempts) == len(local.attempts) == 1
    assert not report.done()
    platform.gate.set()
    local.gate.set()
    await report


async def test_a_slow_platform_is_waited_for_however_long(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    platform.gate.clear()
    report = start(multi)
    await clock.advance(3600)
    assert not report.done()
    assert local.batches == [EXAMPLE]
    platform.gate.set()
    await report


@pytest.mark.parametrize("platform_fails", [False, True])
async def test_a_hanging_local_holds_the_platforms_result_up_for_one_second_at_most(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    clock: ManualClock,
    *,
    platform_fails: bool,
) -> None:
    local.gate.clear()
    if platform_fails:
        platform.failures = [PLATFORM_ERROR]
    report = start(multi)
    await clock.advance(0.999)
    assert not report.done()
    await clock.advance(0.001)
    assert report.done()
    assert report.exception() is (PLATFORM_ERROR if platform_fails else None)


async def test_a_local_slower_than_a_second_goes_on_and_arrives(
    multi: MultiReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    local.gate.clear()
    report = start(multi)
    await clock.advance(1)
    await report
    assert local.batches == []
    local.gate.set()
    await clock.advance(0)
    assert local.batches == [EXAMPLE]


async def test_a_local_that_fails_in_the_background_is_a_warning(
    multi: MultiReporter,
    local: RecordingReporter,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local.gate.clear()
    local.failures = [LOCAL_ERROR]
    report = start(multi)
    await clock.advance(1)
    await report
    assert warnings_of(caplog) == []
    local.gate.set()
    await clock.advance(0)
    assert [w["error"] for w in warnings_of(caplog)] == ["local down"]


async def test_at_most_four_local_reports_go_on_and_further_batches_skip_it_with_a_warning(
    multi: MultiReporter,
    platform: RecordingReporter,
    local: RecordingReporter,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local.gate.clear()
    for count in range(1, 7):
        report = start(multi, named(latency_batch(count), 10 * count))
        await clock.advance(1)
        await report
    assert len(platform.batches) == 6
    assert len(local.attempts) == 4
    assert [w["error"] for w in warnings_of(caplog)] == [
        "skipped: the endpoint has not answered earlier reports yet"
    ]
    local.gate.set()
    await clock.advance(0)
    await multi.report_metrics(NODE, named(latency_batch(7), 70))
    assert [len(batch) for batch in local.batches] == [1, 2, 3, 4, 7]


async def test_a_skipping_report_does_not_wait(
    multi: MultiReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    local.gate.clear()
    for _ in range(4):
        report = start(multi)
        await clock.advance(1)
        await report
    report = start(multi)
    await clock.advance(0)
    assert report.done()


# A batch that is sent again


async def test_a_batch_sent_again_goes_to_the_platform_only(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    platform.failures = [PLATFORM_ERROR, PLATFORM_ERROR]
    for _ in range(2):
        with pytest.raises(APIError):
            await multi.report_metrics(NODE, named(EXAMPLE, 1))
    await multi.report_metrics(NODE, named(EXAMPLE, 1))
    await multi.report_metrics(NODE, named(EXAMPLE, 4))
    assert len(platform.attempts) == 4
    assert [batch.name for batch in local.batches] == [
        named(EXAMPLE, 1).name,
        named(EXAMPLE, 4).name,
    ]


async def test_a_batch_sent_again_is_not_held_up_by_its_hanging_first_local_report(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    local.gate.clear()
    platform.failures = [PLATFORM_ERROR]
    report = start(multi, named(EXAMPLE, 1))
    await clock.advance(1)
    assert report.exception() is PLATFORM_ERROR
    again = start(multi, named(EXAMPLE, 1))
    await clock.advance(0)
    assert again.done()
    assert len(local.attempts) == 1


async def test_a_failed_local_report_is_not_repeated_with_the_batch(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    platform.failures, local.failures = [PLATFORM_ERROR], [LOCAL_ERROR]
    with pytest.raises(APIError):
        await multi.report_metrics(NODE, named(EXAMPLE, 1))
    await multi.report_metrics(NODE, named(EXAMPLE, 1))
    assert len(local.attempts) == 1


async def test_the_pieces_of_a_batch_the_local_has_seen_whole_go_to_the_platform_only(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    whole = named(latency_batch(4), 1)
    assert whole.name is not None
    platform.failures = [APIError(413, "too large")]
    with pytest.raises(APIError):
        await multi.report_metrics(NODE, whole)
    for offset in (0, 2):
        await multi.report_metrics(NODE, whole.piece(offset, offset + 2))
    assert local.batches == [whole]
    assert [len(batch) for batch in platform.batches] == [2, 2]


async def test_of_a_batch_that_has_grown_the_local_gets_the_new_points_only(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    platform.failures = [PLATFORM_ERROR]
    with pytest.raises(APIError):
        await multi.report_metrics(NODE, named(latency_batch(4)))
    await multi.report_metrics(NODE, named(latency_batch(6)))
    assert [batch.name for batch in local.batches] == [
        BatchName(EPOCH, 1, 4),
        BatchName(EPOCH, 5, 2),
    ]
    assert [point.peer_id for point in local.points] == [f"peer-{i}" for i in range(6)]


async def test_points_that_were_renamed_go_to_the_platform_only(
    multi: MultiReporter, local: RecordingReporter
) -> None:
    await multi.report_metrics(NODE, named(latency_batch(4)))
    renamed = continuation(EPOCH, NOW)
    for first in (3, 5):
        points = latency_batch(6)[first - 1 : first + 1]
        await multi.report_metrics(NODE, MetricBatch(points, name=BatchName(renamed, first, 2)))
    assert [point.peer_id for point in local.points] == [f"peer-{i}" for i in range(6)]


async def test_another_life_of_the_spool_begins_with_its_first_place(
    multi: MultiReporter, local: RecordingReporter
) -> None:
    await multi.report_metrics(NODE, named(latency_batch(4)))
    await multi.report_metrics(NODE, MetricBatch(latency_batch(2), name=BatchName("f" * 32, 1, 2)))
    assert len(local.points) == 6


async def test_batches_without_a_name_always_go_to_both(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    for _ in range(2):
        await multi.report_metrics(NODE, EXAMPLE)
    assert len(platform.batches) == len(local.batches) == 2


# Ends


async def test_cancelling_the_caller_cancels_both(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    platform.gate.clear()
    local.gate.clear()
    report = start(multi)
    await clock.advance(0)
    report.cancel()
    await clock.advance(0)
    assert report.cancelled()
    platform.gate.set()
    local.gate.set()
    await clock.advance(0)
    assert platform.batches == local.batches == []


async def test_cancelling_a_batch_sent_again_cancels_the_platform_alone(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    await multi.report_metrics(NODE, named(EXAMPLE, 1))
    platform.gate.clear()
    report = start(multi, named(EXAMPLE, 1))
    await clock.advance(0)
    report.cancel()
    await clock.advance(0)
    assert report.cancelled()
    assert len(local.batches) == 1


async def test_cancelling_the_caller_while_it_waits_for_the_local_leaves_that_one_going(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    local.gate.clear()
    report = start(multi)
    await clock.advance(0.5)
    report.cancel()
    await clock.advance(0)
    assert report.cancelled()
    assert platform.batches == [EXAMPLE]
    local.gate.set()
    await clock.advance(0)
    assert local.batches == [EXAMPLE]


async def test_closing_cancels_what_goes_on_and_is_idempotent(
    platform: RecordingReporter, local: RecordingReporter, clock: ManualClock
) -> None:
    local.gate.clear()
    async with MultiReporter(platform, local, clock=clock) as multi:
        report = start(multi)
        await clock.advance(1)
        await report
        await multi.aclose()
        await multi.aclose()
    local.gate.set()
    await clock.advance(0)
    assert local.batches == []


async def test_after_closing_the_platform_still_decides_and_the_local_is_left_alone(
    multi: MultiReporter, platform: RecordingReporter, local: RecordingReporter
) -> None:
    await multi.aclose()
    await multi.report_metrics(NODE, EXAMPLE)
    assert platform.batches == [EXAMPLE]
    assert local.attempts == []


async def test_closing_does_not_close_the_two(platform: RecordingReporter) -> None:
    closed: list[str] = []

    class Closing(RecordingReporter):
        async def aclose(self) -> None:
            closed.append("local")

    async with MultiReporter(platform, Closing()) as multi:
        await multi.report_metrics(NODE, EXAMPLE)
    assert closed == []
