from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plexd_server.mesh.links import Link, View, join, link_id

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


def view(node: str, peer: str, **fields: Any) -> View:
    usual: dict[str, Any] = {
        "state": "up",
        "reason": "answers in 14 ms",
        "since": NOW,
        "measured_at": NOW,
        "rtt_nano": 14_000_000,
        "loss_percent": 0.0,
        "handshake_age_seconds": 40.0,
        "rx_bytes_per_second": 100.0,
        "tx_bytes_per_second": 100.0,
    }
    return View(node_id=node, peer_id=peer, **(usual | fields))


def only(*views: View) -> Link:
    (link,) = join(views)
    return link


def test_both_views_become_one_link_whichever_comes_first() -> None:
    there, back = view("n1", "n2"), view("n2", "n1")

    assert only(there, back) == only(back, there)
    assert (only(back, there).a_to_b, only(back, there).b_to_a) == (there, back)


def test_a_link_is_named_alike_from_both_ends() -> None:
    assert link_id("n2", "n1") == link_id("n1", "n2") == "n1~n2"


def test_a_peer_that_never_reports_has_a_link_with_one_view() -> None:
    link = only(view("n2", "laptop"))

    assert (link.a, link.b, link.a_to_b) == ("laptop", "n2", None)
    assert link.loss_asymmetry is None


def test_the_worse_state_is_the_links_with_whose_it_is() -> None:
    link = only(view("n1", "n2"), view("n2", "n1", state="stale", reason="answers no ping"))

    assert (link.state, link.reason) == ("stale", "n2 about n1: answers no ping")


def test_loss_that_differs_is_said() -> None:
    link = only(view("n1", "n2", loss_percent=2.0), view("n2", "n1", loss_percent=32.0))

    assert link.loss_asymmetry == 30.0
    assert "the two ends' loss differs by 30 points" in link.reason


def test_loss_that_differs_little_is_not_said() -> None:
    link = only(view("n1", "n2", loss_percent=2.0), view("n2", "n1", loss_percent=22.0))

    assert (link.loss_asymmetry, "differs" in link.reason) == (20.0, False)


@pytest.mark.parametrize("deaf_state", ["one-way", "down"])
@pytest.mark.parametrize("deaf", ["n1", "n2"])
def test_the_end_that_is_not_heard_is_named(deaf: str, deaf_state: str) -> None:
    other = {"n1": "n2", "n2": "n1"}[deaf]
    link = only(
        view(deaf, other, state=deaf_state, rx_bytes_per_second=0.0, rtt_nano=None),
        view(other, deaf, state="one-way"),
    )

    assert link.silence == f"{other} hears {deaf}, but {deaf} does not hear {other}"
    assert link.reason == link.silence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"state": "down", "rx_bytes_per_second": 0.0}, {"state": "unknown"}),
        ({"state": "down", "rx_bytes_per_second": 0.0}, {"rx_bytes_per_second": 0.0}),
        ({"state": "down", "rx_bytes_per_second": None}, {}),
        ({"state": "up", "rx_bytes_per_second": 0.0}, {}),
        (
            {"state": "down", "rx_bytes_per_second": 0.0},
            {"state": "down", "rx_bytes_per_second": 0.0},
        ),
    ],
)
def test_without_proof_nobody_is_called_unheard(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert only(view("n1", "n2", **one), view("n2", "n1", **other)).silence == ""


DEAF: dict[str, Any] = {"state": "one-way", "rx_bytes_per_second": 0.0, "rtt_nano": None}


@pytest.mark.parametrize(
    "other",
    [
        DEAF,
        {"state": "up", "rx_bytes_per_second": 0.0, "rtt_nano": None},
        {"state": "stale", "rx_bytes_per_second": 0.0, "rtt_nano": None},
        DEAF | {"state": "down"},
    ],
)
def test_when_neither_end_receives_anything_the_link_is_down(other: dict[str, Any]) -> None:
    for link in (
        only(view("n1", "n2", **DEAF), view("n2", "n1", **other)),
        only(view("n1", "n2", **other), view("n2", "n1", **DEAF)),
    ):
        assert (link.state, link.silence) == ("down", "")
        assert link.reason.startswith("neither end receives anything")


def test_an_end_that_has_not_reported_since_is_not_called_heard() -> None:
    before = NOW - timedelta(seconds=40)
    link = only(view("n1", "n2", **DEAF), view("n2", "n1", measured_at=before))

    assert (link.state, link.silence) == ("stale", "")
    assert link.reason.endswith("n2 has reported nothing newer yet")


def test_one_end_alone_is_believed() -> None:
    alone = only(view("n1", "n2", **DEAF))
    old = only(view("n1", "n2", **DEAF), view("n2", "n1", state="unknown"))

    assert (alone.state, old.state) == ("one-way", "one-way")


def test_links_come_in_order_of_their_ends() -> None:
    found = [link.id for link in join([view("n3", "n1"), view("n2", "n1"), view("n1", "n3")])]

    assert found == ["n1~n2", "n1~n3"]
