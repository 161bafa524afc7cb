"""The retry policy for any outcome and any number of failures."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from plexd.api import APIError, TransportError
from plexd.metrics.retry import Action, decide

attempts = st.integers(-5, 10**6) | st.integers(0, 40)
fractions = st.floats(0, 1, exclude_max=True)
waits = st.none() | st.timedeltas(min_value=timedelta(), max_value=timedelta(days=365))


@given(st.integers(100, 599), waits, attempts, fractions)
def test_every_answer_leads_to_one_bounded_wait(
    status: int, asked: timedelta | None, attempt: int, fraction: float
) -> None:
    decision = decide(APIError(status, "", asked), attempt)
    wait = decision.draw(fraction)
    assert decision.least <= wait <= decision.most <= 3960
    if decision.action is Action.RETRY and asked is not None:
        assert wait >= min(asked.total_seconds(), 3600)


@given(attempts, attempts, fractions)
def test_more_failures_never_mean_a_shorter_wait(one: int, other: int, fraction: float) -> None:
    less, more = sorted((one, other))
    sooner = decide(TransportError("down"), less).draw(fraction)
    assert sooner <= decide(TransportError("down"), more).draw(fraction) < 300
