"""The answer about all nodes: what is encoded once is encoded again when it changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from plexd.metrics.testing import system_point
from plexd.steps import finish
from plexd_server.mesh import LiveMesh
from plexd_server.mesh.fleet import fleet
from plexd_server.mesh.live import Roster
from plexd_server.mesh.moment import Moment
from plexd_server.mesh.overview import encoding, mesh, peers
from plexd_server.registry import Node
from plexd_server.store import Loss, Report
from support.answers import fleet_at
from support.readings import reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from plexd_server.mesh.fleet import FleetAnswer

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
NAMES = ("n1", "n2", "n3")


def at(seconds: float, server_ahead: float = 0.0) -> Moment:
    return Moment(START.timestamp() + seconds + server_ahead, seconds)


def report(live: LiveMesh, node: str, seconds: float, cpu: float = 10.0, **peer: Any) -> None:
    stamp = START + timedelta(seconds=seconds)
    system = system_point(stamp)
    stats = replace(system.data, cpu_usage_percent=cpu)  # type: ignore[type-var]
    points = [replace(system, data=stats), *reading("n2", stamp, **peer)]
    live.observe(Report(node, points, stamp), at(seconds))


def from_nothing(live: LiveMesh, now: Moment) -> FleetAnswer:
    for node in live.nodes.values():
        node.entry = None
    return fleet_at(live, now)


@pytest.fixture
def live() -> LiveMesh:
    made = LiveMesh()
    made.update_roster(Roster.of(Node(name, "", START) for name in NAMES))
    return made


def reports_again(live: LiveMesh) -> Moment:
    report(live, "n1", 20, cpu=50)
    return at(22)


def is_silent(_live: LiveMesh) -> Moment:
    return at(155)


def comes_to_the_next_minute(_live: LiveMesh) -> Moment:
    return at(60)


def has_another_address(live: LiveMesh) -> Moment:
    live.update_roster(Roster.of(Node(name, "10.0.0.1", START) for name in NAMES))
    return at(10)


def loses_a_peer(live: LiveMesh) -> Moment:
    gone = Node("n2", "", START, revoked_at=START)
    live.update_roster(Roster.of([*(n for n in live.roster.nodes if n.node_id != "n2"), gone]))
    return at(10)


def sees_the_servers_clock_set(_live: LiveMesh) -> Moment:
    return at(10, server_ahead=7.0)


@pytest.mark.parametrize(
    "happens",
    [
        reports_again, is_silent, comes_to_the_next_minute, has_another_address, loses_a_peer,
        sees_the_servers_clock_set,
    ],
)  # fmt: skip
def test_what_was_encoded_before_is_never_old(
    live: LiveMesh, happens: Callable[[LiveMesh], Moment]
) -> None:
    # Without peers, or their states would change as well.
    peers_read = reading("n2", START) if happens is loses_a_peer else []
    live.observe(Report("n1", [system_point(START), *peers_read], START), at(5))
    before = fleet_at(live, at(6))

    now = happens(live)
    after = fleet_at(live, now)

    assert after == from_nothing(live, now)
    assert after.nodes != before.nodes


def test_a_node_that_comes_seldom_owes_its_reports_later(live: LiveMesh) -> None:
    found = []
    for number in range(4):
        report(live, "n1", 100 * number)
        found.append(fleet_at(live, at(100 * number + 1)).nodes[0].silent_after_seconds)

    assert found == [150, 250, 250, 250]


def test_a_node_is_silent_in_time_though_nothing_comes(live: LiveMesh) -> None:
    live.observe(Report("n1", [system_point(START)], START), at(0))  # no peers, nothing else ages

    seen = [fleet_at(live, at(later)).nodes[0].status for later in (100, 149, 151)]

    assert seen == ["up", "up", "silent"]


def test_the_processors_past_is_in_whole_percent(live: LiveMesh) -> None:
    report(live, "n1", 0, cpu=12.3456789)
    report(live, "n1", 60, cpu=99.6)

    (node, *_) = fleet_at(live, at(61)).nodes

    assert list(node.cpu_history[-2:]) == [12, 100]
    assert node.system is not None
    assert node.system.cpu_usage_percent == 99.6


def test_of_many_alerts_the_worst_are_listed_in_their_order() -> None:
    live = LiveMesh()
    names = [f"n{number:04}" for number in range(3000)]
    live.update_roster(Roster.of(Node(name, "", START) for name in names))
    lost = Loss(reason="gap", since=None, until=START, noticed_at=START, points=7)
    for name in names:
        live.set_losses(name, [lost])
    for name in names[2::3]:
        report(live, name, 0)

    answer = fleet_at(live, at(200))  # those that reported are silent now

    assert answer.alerts_left_out + len(answer.alerts) == 3000 + 1000
    assert [alert.node_ids[0] for alert in answer.alerts] == names[2::3][:200]
    assert {alert.severity for alert in answer.alerts} == {"bad"}


def test_an_answer_in_pieces_is_what_it_is_in_one(live: LiveMesh) -> None:
    now = at(10)
    empty = live.snapshot(now)
    for seconds in (1, 2):
        for number in range(300):
            live.observe(
                Report(f"n{number}", reading("n1", START), START), at(seconds)
            )  # most of them are not registered
        live.update_roster(Roster.of(Node(f"n{n}", "", START) for n in range(150 * seconds)))
    for snapshot in (empty, live.snapshot(now)):
        for steps in (
            fleet(live, snapshot, now),
            mesh(live, snapshot, now),
            peers(live, "n1", snapshot, now),
        ):
            answer = finish(steps)
            assert b"".join(finish(encoding(answer))) == msgspec.json.encode(answer)
