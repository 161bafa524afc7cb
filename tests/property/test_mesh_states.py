from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plexd_server.mesh.classify import SEVERITY, Observation, State, Verdict, classify
from plexd_server.mesh.hysteresis import next_state
from plexd_server.mesh.links import View, join

COUNT = st.none() | st.integers(0, 2**64)
OBSERVATIONS = st.builds(
    Observation,
    handshake_age=st.none() | st.floats(-1e6, 1e12),
    handshake_succeeded=st.none() | st.booleans(),
    rx_bytes=COUNT,
    tx_bytes=COUNT,
    span=st.floats(0, 1e9),
    rtt_nano=st.none() | st.integers(-1, 2**63 - 1),
    lost_in_row=st.integers(0, 2**31),
    loss_percent=st.none() | st.floats(0, 100),
    was_reached=st.booleans(),
)
STATES: list[State] = list(SEVERITY)
VERDICTS = st.builds(Verdict, st.sampled_from(STATES), st.just("because"), OBSERVATIONS)


@given(OBSERVATIONS)
def test_every_observation_has_a_state_and_a_reason_for_people(seen: Observation) -> None:
    verdict = classify(seen)

    assert verdict.state in SEVERITY
    assert 10 < len(verdict.reason) < 220
    assert not re.search(r"None|\bnan|\binf\b|e\+|  |-\d", verdict.reason), verdict.reason


@given(OBSERVATIONS)
def test_a_ping_that_came_back_is_never_down(seen: Observation) -> None:
    if seen.rtt_nano is not None and seen.rtt_nano >= 0:
        assert classify(seen).state in {"up", "stale", "never"}


@given(VERDICTS, VERDICTS, st.integers(2, 30))
def test_single_readings_that_alternate_change_the_state_at_most_once(
    one: Verdict, other: Verdict, count: int
) -> None:
    states = []
    held = None
    for number in range(count):
        held = next_state(held, (one, other)[number % 2], 15.0 * number)
        states.append(held.state)

    assert sum(a != b for a, b in pairwise(states)) <= 1


@given(st.lists(VERDICTS, min_size=1, max_size=30))
def test_a_state_is_one_that_was_read_and_never_begins_after_its_reading(
    verdicts: list[Verdict],
) -> None:
    held = None
    for number, verdict in enumerate(verdicts):
        held = next_state(held, verdict, 15.0 * number)
        assert held.since <= held.at == 15.0 * number
        assert held.state in {read.state for read in verdicts[: number + 1]}


@given(VERDICTS, VERDICTS)
def test_two_readings_that_agree_decide_the_state(first: Verdict, then: Verdict) -> None:
    held = next_state(None, first, 0.0)
    for number in (1, 2):
        held = next_state(held, then, 15.0 * number)

    assert held.state == then.state


NODES = st.sampled_from(["n1", "n2", "n3", "laptop"])


@given(st.lists(st.tuples(NODES, NODES), unique=True))
def test_every_view_is_in_exactly_one_link(pairs: list[tuple[str, str]]) -> None:
    now = datetime(2026, 2, 12, tzinfo=UTC)
    views = [
        View(
            node_id=node,
            peer_id=peer,
            state="up",
            reason="r",
            since=now,
            measured_at=now,
        )
        for node, peer in pairs
        if node != peer
    ]
    links = list(join(views))

    found = [view for link in links for view in (link.a_to_b, link.b_to_a) if view]
    assert sorted(map(repr, found)) == sorted(map(repr, views))
    assert len({link.id for link in links}) == len(links)
