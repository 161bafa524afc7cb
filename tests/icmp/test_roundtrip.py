"""Arithmetic of clocks: monotonic seconds start at 100 s here, the wall clock is 1,000 s ahead."""

from __future__ import annotations

import time

import pytest

from plexd.icmp.roundtrip import round_trip, sample_clocks

SECOND = 1_000_000_000
SENT = 100 * SECOND
OFFSET = 1_000 * SECOND


def test_the_time_an_answer_waits_to_be_read_does_not_count() -> None:
    stamp = SENT + OFFSET + 5_000
    assert round_trip(SENT, SENT + SECOND, stamp, OFFSET, OFFSET) == (5_000, False)


@pytest.mark.parametrize("step", [-3600 * SECOND, -SECOND // 5, SECOND // 5, 3600 * SECOND])
@pytest.mark.parametrize("stepped_before_the_answer", [True, False])
def test_a_stepped_wall_clock_leaves_the_monotonic_time(
    step: int, *, stepped_before_the_answer: bool
) -> None:
    stamp = SENT + OFFSET + 5_000 + step * stepped_before_the_answer
    measured = round_trip(SENT, SENT + 8_000, stamp, OFFSET, OFFSET + step)
    assert measured == (8_000, True)


@pytest.mark.parametrize("found", [-SECOND, 0, 8_001])
def test_an_impossible_stamp_is_ignored(found: int) -> None:
    stamp = SENT + OFFSET + found
    assert round_trip(SENT, SENT + 8_000, stamp, OFFSET, OFFSET) == (8_000, False)


def test_without_a_stamp_the_monotonic_time_counts() -> None:
    assert round_trip(SENT, SENT + 8_000, 0, OFFSET, OFFSET) == (8_000, False)


def test_a_round_trip_is_at_least_a_nanosecond() -> None:
    assert round_trip(SENT, SENT, 0, OFFSET, OFFSET) == (1, False)


def test_a_clock_that_is_slewed_has_not_been_stepped() -> None:
    rtt = 2 * SECOND
    offset = OFFSET + rtt // 2_000  # 500 ppm, the most that adjtimex does
    assert round_trip(SENT, SENT + rtt, SENT + offset + rtt - 1, OFFSET, offset) == (rtt - 1, False)


def test_the_clocks_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = iter([0, 1_000_000, 1_000_000, 1_001_000])
    wall = iter([5_000_000, 6_000_500])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(steady))
    monkeypatch.setattr(time, "time_ns", lambda: next(wall))
    assert sample_clocks() == (5_000_000, 1_001_000)
