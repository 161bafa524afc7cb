"""The answer table of the delivery contract, line by line and status by status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from plexd.api import APIError, DecodeError, EncodeError, TLSError, TransportError
from plexd.api.answers import parse_retry_after
from plexd.metrics import CredentialError
from plexd.metrics.retry import Action, Decision, decide

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)

# The contract's table once more, so that a slip in the one shows against the other.
RETRIED = {408, 425, 429, *range(500, 600)}
NOT_OF_USE = {400, 415, 422}
CREDENTIAL = {401, 403}
CONFIGURATION = {404, 405, *range(300, 400)}


def expected(status: int) -> Action:
    if 200 <= status < 300:
        return Action.ACCEPT
    if status in RETRIED:
        return Action.RETRY
    if status == 413:
        return Action.SPLIT
    return Action.SET_ASIDE if status in NOT_OF_USE else Action.HOLD


@pytest.mark.parametrize("status", range(100, 600))
def test_each_status_has_the_action_of_the_table(status: int) -> None:
    decision = decide(APIError(status, "why"), 0)
    assert decision.action is expected(status)
    assert bool(decision.hint) == (decision.action is Action.HOLD)
    assert (decision.most > 0) == (decision.action in {Action.RETRY, Action.HOLD})


@pytest.mark.parametrize("status", [0, -1, 99, 600, 999])
def test_a_status_no_protocol_knows_is_held(status: int) -> None:
    assert decide(APIError(status, "why"), 0).action is Action.HOLD


def test_no_error_is_an_acceptance() -> None:
    assert decide(None, 7) == Decision(Action.ACCEPT)


OTHER_ERRORS = {
    TransportError("reset"): Action.RETRY,
    TLSError("unknown authority"): Action.HOLD,
    TimeoutError(): Action.RETRY,
    OSError(28, "No space left on device"): Action.RETRY,
    MemoryError(): Action.RETRY,
    DecodeError("an answer nobody can read"): Action.RETRY,
    EncodeError("no JSON"): Action.SET_ASIDE,
    CredentialError("no token"): Action.HOLD,
    RuntimeError("closed"): Action.RETRY,
}


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=lambda error: type(error).__name__)
def test_what_is_no_answer_is_tried_again_unless_somebody_must_act(error: Exception) -> None:
    assert decide(error, 0).action is OTHER_ERRORS[error]


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (CREDENTIAL, "plexd register --force"),
        (CONFIGURATION, "configuration error"),
        ({100, 101, 402, 406, 409, 410, 418, 451, 499}, "not understood"),
    ],
)
def test_a_hold_says_what_the_operator_must_look_at(statuses: set[int], words: str) -> None:
    assert all(words in decide(APIError(status, ""), 0).hint for status in statuses)
    assert "api.ca_file" in decide(TLSError("expired"), 0).hint


def test_a_hold_is_probed_every_few_minutes_however_often_it_failed() -> None:
    for attempt in (0, 1, 50):
        decision = decide(APIError(401, ""), attempt)
        assert (decision.least, decision.most) == (120, 300)


def test_the_backoff_doubles_from_one_second_to_five_minutes_with_full_jitter() -> None:
    ranges = [decide(TransportError("down"), attempt) for attempt in range(12)]
    assert [decision.most for decision in ranges] == [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300,
    ]  # fmt: skip
    assert {decision.least for decision in ranges} == {0}


# header: seconds that may pass at least and at most, by the backoff's first step where None is read
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
def test_a_wait_the_server_asks_for_is_kept_within_a_second_and_an_hour(
    status: int, header: str
) -> None:
    error = APIError(status, "busy", parse_retry_after(header, NOW))
    decision = decide(error, 0)
    assert (decision.least, decision.most) == pytest.approx(ASKED[header])


def test_a_wait_asked_for_outranks_the_backoff() -> None:
    decision = decide(APIError(503, "busy", timedelta(seconds=5)), 40)
    assert (decision.least, decision.most) == (5, 6)


def test_a_draw_goes_evenly_from_the_least_to_the_most() -> None:
    decision = Decision(Action.RETRY, 10, 20)
    assert [decision.draw(fraction) for fraction in (0, 0.25, 0.5)] == [10, 12.5, 15]
