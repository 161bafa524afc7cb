"""Whose clock is wrong: the node's, or this server's."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import MetricBatch
from plexd.metrics.testing import ManualClock, system_point
from plexd_server.routes.horizon import Horizon
from plexd_server.web.problems import Problem
from support.points import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

RIGHT = MetricBatch([system_point(NOW)])
AHEAD = MetricBatch([system_point(NOW), system_point(NOW + timedelta(days=2))])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def horizon(clock: ManualClock) -> Horizon:
    return Horizon(clock)


def test_the_horizon_itself_is_not_ahead(horizon: Horizon) -> None:
    day = timedelta(hours=24)
    batch = MetricBatch([system_point(NOW + day), system_point(NOW + day + timedelta.resolution)])
    horizon.ahead("n2", RIGHT, NOW)

    assert horizon.ahead("n1", batch, NOW) == (1,)


def test_of_two_nodes_the_one_ahead_is_wrong_and_of_one_nobody_knows(
    horizon: Horizon, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with pytest.raises(Problem):
            horizon.ahead("n1", AHEAD, NOW)
        with pytest.raises(Problem, match="clock is in doubt") as refusal:
            horizon.ahead("n1", AHEAD, NOW)
    horizon.ahead("n2", RIGHT, NOW)

    assert horizon.ahead("n1", AHEAD, NOW) == (1,)
    assert refusal.value.status == 503
    for moment in ("2026-02-12T10:30:00Z", "2026-02-14T10:30:00Z"):
        assert moment in refusal.value.detail
    assert [record.message for record in caplog.records] == ["clock in doubt"]


def names(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}{number}" for number in range(count))


async def test_more_than_half_of_the_nodes_that_reported_lately_decide(
    horizon: Horizon, clock: ManualClock
) -> None:
    for name in names("right", 50):
        horizon.ahead(name, RIGHT, NOW)
    for name in names("ahead", 50):
        assert horizon.ahead(name, AHEAD, NOW) == (1,)
    with pytest.raises(Problem):
        horizon.ahead("one more", AHEAD, NOW)
    horizon.ahead("one more", RIGHT, NOW)
    assert horizon.ahead("ahead1", AHEAD, NOW) == (1,)
    await clock.advance(601)
    with pytest.raises(Problem):
        horizon.ahead("ahead1", AHEAD, NOW)


def test_a_report_without_such_points_is_never_refused(horizon: Horizon) -> None:
    for name in names("ahead", 3):
        with pytest.raises(Problem):
            horizon.ahead(name, AHEAD, NOW)

    assert horizon.ahead("n1", RIGHT, NOW) == ()
    assert horizon.ahead("n1", MetricBatch([]), NOW) == ()


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_a_clock_of_any_year_is_compared(horizon: Horizon, year: int) -> None:
    now = datetime(year, 12, 31, 23, tzinfo=UTC)
    if year == 9999:
        assert horizon.ahead("n1", AHEAD, now) == ()
    else:
        with pytest.raises(Problem):
            horizon.ahead("n1", RIGHT, now)
