"""What becomes of a batch after each answer, seen from outside: the table of the contract."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from plexd.api import APIError, DecodeError, EncodeError, TLSError, TransportError
from plexd.api.answers import parse_retry_after
from plexd.metrics import Config, CredentialError, MemorySpool
from plexd.metrics.delivery import Delivery
from plexd.metrics.testing import ManualClock, RecordingReporter, system_point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
LOGGER = logging.getLogger("plexd.test.retry")
LEAST, MOST = 0.0, 1.0


class Scene(NamedTuple):
    clock: ManualClock
    reporter: RecordingReporter
    spool: MemorySpool
    delivery: Delivery


class Fate(NamedTuple):
    """What can be seen after a first report of four points."""

    attempts: list[int]
    waiting: int
    acknowledged: int
    refused: int
    is_held: bool


ACKNOWLEDGED = Fate([4], 0, 4, 0, is_held=False)
TRIED_AGAIN = Fate([4], 4, 0, 0, is_held=False)
HELD = Fate([4], 4, 0, 0, is_held=True)
IN_PIECES = Fate([4, 2, 2], 0, 4, 0, is_held=False)
SET_ASIDE = Fate([4], 0, 0, 4, is_held=False)


@asynccontextmanager
async def delivering(*errors: BaseException, fraction: float = 0.5) -> AsyncIterator[Scene]:
    """A delivery whose first reports, one of them under way at once, end in ``errors``."""
    clock = ManualClock(NOW)
    reporter, spool = RecordingReporter(*errors), MemorySpool(clock=clock)
    delivery = Delivery(
        Config(batch_size=4), spool, reporter, "node", LOGGER, clock, random=lambda: fraction
    )
    await spool.append([system_point(clock.now())] * 4)
    delivery.points_arrived(4)
    running = asyncio.create_task(delivery.run())
    await clock.advance(0)
    yield Scene(clock, reporter, spool, delivery)
    running.cancel()
    await asyncio.wait([running])


async def fate(error: BaseException) -> Fate:
    async with delivering(error) as scene:
        spool, delivery = scene.spool.statistics(), scene.delivery.statistics()
        sizes = [len(batch) for batch in scene.reporter.attempts]
        held = bool(delivery.held)
        return Fate(sizes, spool.waiting, spool.acknowledged, spool.refused, held)


async def waits(error: BaseException) -> tuple[float, float]:
    """The shortest and the longest wait that may be drawn after ``error``."""
    found = []
    for fraction in (LEAST, MOST):
        async with delivering(error, fraction=fraction) as scene:
            found.append(scene.delivery.statistics().next_attempt_seconds)
    return found[0], found[1]


# The rows of the contract's table; the last one is what no other row names.
ROWS = {
    "2xx": (range(200, 300), ACKNOWLEDGED),
    "408, 425, 429, 5xx": ([408, 425, 429, *range(500, 600)], TRIED_AGAIN),
    "401, 403": ([401, 403], HELD),
    "404, 405, 3xx": ([404, 405, *range(300, 400)], HELD),
    "413": ([413], IN_PIECES),
    "400, 415, 422": ([400, 415, 422], SET_ASIDE),
    "anything else": (
        [
            *(*range(100, 200), 402, 406, 407, *range(409, 413), 414, *range(416, 422)),
            *(423, 424, 426, 427, 428, *range(430, 500)),
        ],
        HELD,
    ),
    "no status of HTTP": ([-1, 0, 99, 600, 999], HELD),
}


def test_the_rows_hold_each_status_once() -> None:
    statuses = [status for row in ROWS.values() for status in row[0] if 100 <= status < 600]
    assert sorted(statuses) == list(range(100, 600))


@pytest.mark.parametrize("row", ROWS)
async def test_each_status_has_the_fate_of_its_row(row: str) -> None:
    statuses, expected = ROWS[row]
    fates = {status: await fate(APIError(status, "why")) for status in statuses}
    assert {status: seen for status, seen in fates.items() if seen != expected} == {}


OTHER_ERRORS = {
    TransportError("reset"): TRIED_AGAIN,
    TLSError("unknown authority"): HELD,
    TimeoutError(): TRIED_AGAIN,
    OSError(28, "No space left on device"): TRIED_AGAIN,
    MemoryError(): TRIED_AGAIN,
    DecodeError("an answer nobody can read"): TRIED_AGAIN,
    EncodeError("no JSON"): SET_ASIDE,
    CredentialError("no token"): HELD,
    RuntimeError("closed"): TRIED_AGAIN,
}


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=lambda error: type(error).__name__)
async def test_a_failure_without_an_answer_is_tried_again_unless_the_operator_must_act(
    error: Exception,
) -> None:
    assert await fate(error) == OTHER_ERRORS[error]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        *((APIError(status, ""), "plexd register --force") for status in (401, 403)),
        *((APIError(status, ""), "configuration error") for status in (404, 405, 302, 399)),
        (TLSError("expired"), "api.ca_file"),
        (CredentialError("no token"), "credential"),
        *((APIError(status, ""), "not understood") for status in (100, 402, 409, 410, 418, 499)),
    ],
)
async def test_a_hold_is_logged_with_what_the_operator_must_look_at(
    caplog: pytest.LogCaptureFixture, error: Exception, words: str
) -> None:
    await fate(error)
    (record,) = caplog.records
    assert words in record.hint  # type: ignore[attr-defined]  # set through extra


@pytest.mark.parametrize("error", [OSError("down"), APIError(503, ""), APIError(400, "")], ids=str)
async def test_a_failure_that_passes_by_itself_has_no_hint(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    await fate(error)
    (record,) = caplog.records
    assert not hasattr(record, "hint")


@pytest.mark.parametrize("fraction", [LEAST, MOST])
async def test_a_hold_is_probed_every_few_minutes_however_often_it_failed(fraction: float) -> None:
    errors = [APIError(401, "")] * 20
    async with delivering(*errors, fraction=fraction) as scene:
        for _ in errors:
            wait = scene.delivery.statistics().next_attempt_seconds
            assert wait == {LEAST: 120, MOST: 300}[fraction]
            await scene.clock.advance(wait)
        assert len(scene.reporter.points) == 4


async def test_the_backoff_doubles_from_one_second_to_five_minutes() -> None:
    errors = [TransportError("down")] * 12
    seen = []
    async with delivering(*errors, fraction=MOST) as scene:
        for _ in errors:
            seen.append(scene.delivery.statistics().next_attempt_seconds)
            await scene.clock.advance(seen[-1])
        assert len(scene.reporter.points) == 4
    assert seen == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
async def test_the_backoff_is_drawn_evenly(fraction: float) -> None:
    async with delivering(*[OSError("down")] * 4, fraction=fraction) as scene:
        await scene.clock.advance(fraction * (1 + 2 + 4))
        s = scene.delivery.statistics()
    assert s.attempt == 4
    assert s.next_attempt_seconds == pytest.approx(8 * fraction)


# header: the least and the most seconds to the next attempt; without a header it is the backoff
ASKED = {
    "0": (1, 2),
    "1": (1, 2),
    "5": (5, 6),
    "120": (120, 132),
    "3600": (3600, 3960),
    "3601": (3600, 3960),
    "1000000000": (3600, 3960),
    "-1": (0, 1),
    "soon": (0, 1),
    "": (0, 1),
    "5, 6": (0, 1),
    "Thu, 12 Feb 2026 10:31:00 GMT": (60, 66),
    "Thu, 12 Feb 2026 10:29:00 GMT": (1, 2),
    "Thu, 12 Feb 2096 10:29:00 GMT": (3600, 3960),
}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
@pytest.mark.parametrize("header", ASKED)
async def test_a_wait_that_is_asked_for_is_kept_between_a_second_and_an_hour(
    status: int, header: str
) -> None:
    error = APIError(status, "busy", parse_retry_after(header, NOW))
    assert await waits(error) == pytest.approx(ASKED[header])


async def test_a_wait_that_is_asked_for_replaces_the_backoff() -> None:
    busy = APIError(503, "busy", parse_retry_after("5", NOW))
    async with delivering(*[OSError("down")] * 9, busy, fraction=MOST) as scene:
        await scene.clock.advance(2**9 - 1)
        s = scene.delivery.statistics()
    assert (s.attempt, s.next_attempt_seconds) == (10, 6)
