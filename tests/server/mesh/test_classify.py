from __future__ import annotations

import pytest
from msgspec.structs import replace

from plexd_server.mesh.classify import SEVERITY, Observation, Verdict, classify
from plexd_server.mesh.hysteresis import HeldState, next_state

MS = 1_000_000


def seen(**fields: float | bool | None) -> Observation:
    """Return a reading of a tunnel that works and is pinged, except for ``fields``."""
    usual = {
        "handshake_age": 40.0,
        "handshake_succeeded": True,
        "rx_bytes": 2048,
        "tx_bytes": 2048,
        "span": 15.0,
        "rtt_nano": 14 * MS,
        "loss_percent": 0.0,
    }
    return Observation(**(usual | fields))  # type: ignore[arg-type]


SILENT = {"rtt_nano": -1, "rx_bytes": 0}
UNPINGED = {"rtt_nano": None, "loss_percent": None}

TABLE = [
    # what is read, the state, a part of the reason
    ({}, "up", "answers in 14 ms; handshake 40 s old"),
    ({"loss_percent": 25.0}, "up", "25 % of pings lost"),
    ({"loss_percent": 0.4}, "up", "answers in 14 ms; handshake"),
    ({"rtt_nano": -1, "loss_percent": 5.0}, "up", "2 KiB came in within 15 s, the last ping was"),
    ({"rtt_nano": -1, "loss_percent": 100.0}, "up", "answers no ping, which it may not allow"),
    ({"rtt_nano": -1, "loss_percent": 100.0, "handshake_age": 150.0}, "one-way", "not renewed"),
    ({**SILENT, "loss_percent": 5.0}, "up", "the last ping was lost (5 % of the latest)"),
    ({**SILENT, "loss_percent": 15.0, "lost_in_row": 3}, "up", "the last 3 pings were lost; hand"),
    ({**SILENT, "loss_percent": 20.0, "lost_in_row": 4}, "one-way", "nothing came back"),
    ({**SILENT, "loss_percent": 100.0}, "one-way", "2 KiB went out in 15 s, nothing came back"),
    ({**SILENT, "loss_percent": 100.0, "tx_bytes": 0}, "stale", "the last sign of life"),
    ({**SILENT, "loss_percent": 100.0, "rx_bytes": None, "tx_bytes": None}, "stale", "no ping"),
    ({**SILENT, "loss_percent": 100.0, "handshake_age": 600.0}, "down", "10 min old"),
    ({**SILENT, "loss_percent": 5.0, "handshake_age": 186.0}, "down", "nothing came back"),
    ({**SILENT, "handshake_age": 600.0, "tx_bytes": 0, "loss_percent": 5.0}, "stale", "since"),
    ({"rtt_nano": -1, "loss_percent": 100.0, "handshake_age": 600.0}, "one-way", "not to arrive"),
    ({"handshake_age": 600.0}, "stale", "may not come through the tunnel"),
    ({"handshake_age": 183.0}, "up", "handshake 3 min old"),
    ({**UNPINGED}, "up", "2 KiB came in"),
    ({**UNPINGED, "rx_bytes": 0, "tx_bytes": 0}, "up", "handshake 40 s old"),
    ({**UNPINGED, "rx_bytes": 0, "tx_bytes": 64}, "up", "handshake 40 s old"),
    ({**UNPINGED, "rx_bytes": 0, "tx_bytes": 9000}, "one-way", "8.79 KiB went out"),
    ({**UNPINGED, "rx_bytes": None, "tx_bytes": None}, "up", "handshake 40 s old"),
    (
        {**UNPINGED, "handshake_age": 7200.0, "rx_bytes": 0, "tx_bytes": 0},
        "idle",
        "nothing was sent in 15 s; the last handshake was 2 h 0 min old",
    ),
    ({**UNPINGED, "handshake_age": 400.0, "rx_bytes": 0, "tx_bytes": 148}, "down", "148 B went"),
    (
        {**UNPINGED, "handshake_age": 400.0, "rx_bytes": None, "tx_bytes": None},
        "stale",
        "7 min old, and nothing since",
    ),
    ({"handshake_succeeded": False, "tx_bytes": 0, "rtt_nano": None}, "never", "no handshake ever"),
    ({"handshake_succeeded": False, "tx_bytes": 444, "rtt_nano": -1}, "never", "444 B of attempts"),
    ({"handshake_succeeded": False, "tx_bytes": 0}, "never", "but not through the tunnel"),
    ({"handshake_age": None}, "never", "no handshake ever"),
    ({"handshake_succeeded": None}, "up", "answers in 14 ms; no tunnel to it is read"),
    ({"handshake_succeeded": None, "rtt_nano": None}, "unknown", "neither"),
    (
        {"handshake_succeeded": None, "rtt_nano": -1, "loss_percent": None, "lost_in_row": 3},
        "down",
        "the last 3 pings were lost; no tunnel to it is read",
    ),
    (
        {"handshake_succeeded": None, "rtt_nano": -1, "was_reached": False},
        "unknown",
        "no tunnel to it is read, and it never answered a ping",
    ),
]


@pytest.mark.parametrize(("fields", "state", "reason"), TABLE)
def test_a_reading_has_a_state_and_a_reason(
    fields: dict[str, float | bool | None], state: str, reason: str
) -> None:
    verdict = classify(seen(**fields))

    assert (verdict.state, reason in verdict.reason) == (state, True), verdict


def test_every_state_is_in_the_table() -> None:
    assert {state for _, state, _ in TABLE} == set(SEVERITY)


def test_a_counter_that_went_back_is_no_silence() -> None:
    verdict = classify(seen(rx_bytes=None, tx_bytes=None, rtt_nano=-1, loss_percent=10.0))

    assert verdict.state == "up"


UP, DOWN, IDLE = (Verdict(state, "because", Observation()) for state in ("up", "down", "idle"))


def after(*verdicts: Verdict, before: HeldState | None = None) -> HeldState:
    held = before
    start = 0.0 if before is None else before.at + 15
    for number, verdict in enumerate(verdicts):
        held = next_state(held, verdict, start + 15.0 * number)
    assert held is not None
    return held


def test_the_first_reading_counts_at_once() -> None:
    assert after(DOWN) == HeldState(DOWN, 0.0, 0.0, is_first=True)


def test_one_worse_reading_changes_nothing_and_two_count_from_the_first() -> None:
    assert after(UP, DOWN).state == "up"
    assert after(UP, DOWN, DOWN) == HeldState(DOWN, 15.0, 30.0)


def test_proof_needs_no_second_reading() -> None:
    assert after(UP, replace(DOWN, is_proof=True)).state == "down"


def test_a_better_reading_counts_at_once() -> None:
    assert after(DOWN, UP) == HeldState(UP, 15.0, 15.0)


def test_after_a_good_reading_two_worse_ones_are_needed_again() -> None:
    assert after(UP, DOWN, UP, DOWN).state == "up"


def test_two_worse_readings_need_not_agree_on_how_bad_it_is() -> None:
    assert after(UP, DOWN, IDLE).state == "idle"


def test_after_a_long_gap_a_reading_counts_at_once() -> None:
    assert next_state(after(UP), DOWN, 700.0) == HeldState(DOWN, 700.0, 700.0, is_first=True)
