"""A herd comes back: it waits in the server where it can, and else comes in turns."""

from __future__ import annotations

import random
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.metrics.testing import ManualClock
from plexd_server.web.waiting import Turns, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 16_384


class Moment(ManualClock):
    """A clock that is put to a moment, for a simulation that has its own events."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


class Outcome(NamedTuple):
    """How often senders were refused, when the last was answered, and the longest waits."""

    refusals: int
    seconds: float
    longest_wait: float
    longest_turn: int


def come_back(
    senders: int, sender_of: Callable[[int], str], *, rate: float = 900.0, batches: int = 5
) -> Outcome:
    """Let senders with batches come within a second; each sends one after the other.

    The server answers ``rate`` requests a second. A sender that is refused comes back as an agent
    does: when it was asked to, and up to a tenth later.
    """
    random_ = random.Random(1)
    clock = Moment()
    waiting = Waiting(clock, MOST)
    left = [batches] * senders
    events = [(random_.random(), number, True) for number in range(senders)]
    heapify(events)
    refusals, free_at, longest_wait, longest_turn = 0, 0.0, 0.0, 0
    while events:
        clock.at, number, arrives = heappop(events)
        if not arrives:
            waiting.leave(sender_of(number))
            left[number] -= 1
            if left[number]:
                heappush(events, (clock.at + 0.002, number, True))
        elif waiting.enter(sender_of(number)):
            free_at = max(free_at, clock.at) + 1 / rate
            longest_wait = max(longest_wait, free_at - clock.at)
            heappush(events, (free_at, number, False))
        else:
            turn = int(waiting.turn()["Retry-After"])
            refusals, longest_turn = refusals + 1, max(longest_turn, turn)
            later = turn + random_.random() * max(1.0, turn / 10)
            heappush(events, (clock.at + later, number, True))
    assert not any(left)
    return Outcome(refusals, clock.at, longest_wait, longest_turn)


def test_ten_thousand_nodes_with_five_batches_each_wait_in_the_server() -> None:
    done = come_back(10_000, str)

    assert done.refusals == 0
    assert done.longest_wait < 25


def test_ten_thousand_nodes_behind_one_address_are_refused_five_thousand_times_at_most() -> None:
    done = come_back(10_000, lambda _: "all behind one address")

    assert done.refusals < 5000
    assert done.seconds < 1.2 * 50_000 / 900


def test_half_as_many_more_than_there_is_room_for_are_refused_once() -> None:
    done = come_back(24_000, str, batches=1)

    assert 6000 < done.refusals < 7000
    assert done.seconds < 2 * 24_000 / 900


@pytest.mark.slow
def test_a_slow_server_asks_for_longer_waits_within_five_minutes() -> None:
    """With two seconds for everybody there are 295,000 refusals."""
    done = come_back(10_000, lambda _: "all behind one address", rate=300)

    assert done.refusals < 16_000
    assert 60 < done.longest_turn <= 300
    assert done.seconds < 1.5 * 50_000 / 300


def test_one_sender_never_has_more_than_half_of_the_places() -> None:
    waiting = Waiting(Moment(), 1000)

    assert sum(waiting.enter("greedy") for _ in range(2000)) == 500
    assert waiting.enter("another")


def test_there_are_as_many_places_as_are_answered_in_25_seconds() -> None:
    clock = Moment()
    waiting = Waiting(clock, MOST)
    for number in range(8000):
        waiting.enter(str(number))
    for number in range(1500):  # 200 a second
        clock.at += 0.005
        waiting.leave(str(number))

    assert not waiting.enter("one more")
    for number in range(1500, 3500):
        clock.at += 0.005
        waiting.leave(str(number))
    assert waiting.enter("one more")


def test_the_pace_is_not_that_of_a_server_that_has_little_to_do() -> None:
    clock = Moment()
    waiting = Waiting(clock, MOST)
    for number in range(100):
        waiting.enter(str(number))
        clock.at += 1.0
        waiting.leave(str(number))

    assert sum(waiting.enter(f"late {number}") for number in range(10_000)) == 10_000


def test_the_more_are_refused_the_later_they_come_and_not_all_at_once() -> None:
    turns = Turns(Moment())
    given_ = [int(turns.give(1000)["Retry-After"]) for _ in range(10_000)]

    assert given_ == sorted(given_)
    assert (given_[0], given_[-1]) == (3, 12)
    assert max(map(given_.count, set(given_))) <= 1001


def test_a_rush_that_lasts_is_taken_to_last_as_long_again() -> None:
    clock = Moment()
    turns = Turns(clock)
    turns.give(1000)
    clock.at = 60.0
    late = int(turns.give(1000)["Retry-After"])
    clock.at = 150.0
    turns.answered(499)
    soon = int(turns.give(1000)["Retry-After"])

    assert (late, soon) == (61, 3)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3), st.floats(0, 400))))
def test_a_turn_is_always_between_two_seconds_and_five_minutes(
    steps: list[tuple[int, int, float]],
) -> None:
    clock = Moment()
    turns = Turns(clock)
    for waiting, answers, seconds in steps:
        clock.at += seconds
        for _ in range(answers):
            turns.answered(waiting)
        assert 2 <= int(turns.give(waiting)["Retry-After"]) <= 300
        assert turns.pace >= 100
