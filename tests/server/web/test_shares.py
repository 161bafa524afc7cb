"""One sender never has everything, and no sender is forgotten or counted for ever."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plexd_server.web.shares import Shares


def taken_alone(shares: Shares, sender: str | None) -> int:
    count = 0
    while shares.take(sender):
        count += 1
    return count


def test_one_sender_has_half_and_a_newcomer_still_finds_places() -> None:
    shares = Shares(1000)

    assert taken_alone(shares, "a") == 500
    assert taken_alone(shares, "b") == 250
    assert not shares.take("a")


def test_a_thousand_behind_one_address_fit_into_all_requests() -> None:
    assert taken_alone(Shares(2048), "a") >= 1000


def test_ten_greedy_senders_leave_something_for_one_more() -> None:
    shares = Shares(2048)
    for number in range(10):
        taken_alone(shares, f"attacker {number}")

    assert shares.take("honest")


def test_a_sender_without_a_bound_has_whatever_is_free() -> None:
    shares = Shares(10)

    assert taken_alone(shares, None) == 10
    assert not shares.take("a")


def test_a_single_place_can_be_taken() -> None:
    assert Shares(1).take("a")
    assert not Shares(0).take("a")


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 9), st.booleans()))
)
def test_what_is_given_back_is_free_again(steps: list[tuple[str | None, int, bool]]) -> None:
    shares, held = Shares(40), Counter[str | None]()
    for sender, places, is_taking in steps:
        if is_taking:
            fits = held[sender] * (sender is not None) + places <= 40 - held.total()
            assert shares.take(sender, places) is fits
            held[sender] += places * fits
        else:
            shares.give_back(sender, given_back := min(places, held[sender]))
            held[sender] -= given_back
    for sender, places in held.items():
        shares.give_back(sender, places)

    assert shares.take(None, 40)
