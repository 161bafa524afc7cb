"""Wrong clocks that are set right, on either side, and the one rule for a silent node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from plexd.metrics.testing import system_point
from plexd_server.mesh.live import LiveMesh, Roster
from plexd_server.mesh.moment import Moment
from plexd_server.registry import Node
from plexd_server.store import DuckDBStore, Report, StoredPoint
from support.answers import fleet_at
from support.readings import reading

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.api import MetricPoint
    from plexd_server.mesh.fleet import FleetNode
    from plexd_server.mesh.links import View

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
HOUR = 3600.0


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Scene:
    """A server and a node, each with a clock that may be ahead of the true time."""

    def __init__(self) -> None:
        self.live = LiveMesh()
        self.live.update_roster(Roster.of([Node("n1", "", START)]))
        self.server_ahead = 0.0
        self.node_ahead = 0.0
        self.reports: list[Report] = []

    def moment(self, seconds: float) -> Moment:
        return Moment(at(seconds + self.server_ahead).timestamp(), seconds)

    def points(self, seconds: float, cpu: float = 10.0, **peer: Any) -> list[MetricPoint]:
        stamp = at(seconds + self.node_ahead)
        one = system_point(stamp)
        stats: Any = replace(one.data, cpu_usage_percent=cpu)  # type: ignore[type-var]
        return [replace(one, data=stats), *reading("n2", stamp, **peer)]

    def report(self, seconds: float, cpu: float = 10.0, **peer: Any) -> None:
        then = self.moment(seconds + 1)
        received = datetime.fromtimestamp(then.wall, UTC)
        report = Report("n1", self.points(seconds, cpu, **peer), received)
        self.reports.append(report)
        self.live.observe(report, then)

    def recall(self, points: list[MetricPoint], received: datetime, now: Moment) -> None:
        stored = [
            StoredPoint(
                timestamp=p.timestamp, received_at=received, group=p.group, peer_id=p.peer_id,
                data=p.data,
            )
            for p in points
        ]  # fmt: skip
        for _ in self.live.recalling("n1", stored, [], now):
            pass

    def node(self, seconds: float) -> FleetNode:
        (found,) = fleet_at(self.live, self.moment(seconds)).nodes
        return found

    def view(self, seconds: float) -> View:
        (found,) = self.live.snapshot(self.moment(seconds)).views["n1"]
        return found

    def age(self, seconds: float) -> float:
        """Return how long ago the last report is said to have been."""
        received_at = self.node(seconds).received_at
        assert received_at is not None
        return self.moment(seconds).wall - received_at.timestamp()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def cpu_of(node: FleetNode) -> float:
    assert node.system is not None
    return node.system.cpu_usage_percent


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_node_that_dies_is_silent_though_the_servers_clock_was_set(
    scene: Scene, ahead: float
) -> None:
    scene.server_ahead = ahead
    for number in range(4):
        scene.report(60 * number)
    scene.server_ahead = 0.0
    for number in range(4, 8):
        scene.report(60 * number)
    last = 421.0

    assert scene.node(last + 140).status == "up"
    for later in (200, 600, 1800):
        assert scene.node(last + later).status == "silent"
        assert scene.age(last + later) == pytest.approx(later)
        assert scene.view(last + later).state == "unknown"


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_silent_node_stays_silent_and_a_live_one_up_when_the_servers_clock_is_set(
    scene: Scene, step: float
) -> None:
    for number in range(4):
        scene.report(60 * number)
    scene.server_ahead = step

    assert (scene.node(240).status, scene.view(240).state) == ("up", "up")
    assert scene.age(240) == pytest.approx(59, abs=0.5)
    assert (scene.node(400).status, scene.view(400).state) == ("silent", "unknown")


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_once_the_servers_clock_is_right_no_node_has_a_wrong_one(
    scene: Scene, ahead: float
) -> None:
    scene.server_ahead = ahead
    for number in range(4):
        scene.report(60 * number)
    scene.server_ahead = 0.0
    scene.report(240)

    assert scene.node(242).clock_offset_seconds == 0.0
    assert scene.view(242).state == "up"


def test_an_agent_on_the_servers_machine_is_read_after_both_clocks_were_set_back(
    scene: Scene,
) -> None:
    scene.server_ahead = scene.node_ahead = HOUR
    for number in range(4):
        scene.report(60 * number, cpu=10.0)
    scene.server_ahead = scene.node_ahead = 0.0
    dead: Any = {"rtt_nano": -1, "loss": 100.0, "handshake_age": None}
    for number in range(4, 6):
        scene.report(60 * number, cpu=50.0, **dead)

    assert cpu_of(scene.node(302)) == 50.0
    assert scene.view(302).state == "never"


def test_a_node_whose_clock_was_ahead_shows_what_came_last(scene: Scene) -> None:
    scene.node_ahead = 6 * HOUR
    scene.report(0, cpu=99.0)
    scene.node_ahead = 0.0
    scene.report(6, cpu=7.0)

    assert cpu_of(scene.node(8)) == 7.0
    assert scene.node(8).clock_offset_seconds == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("set_right", [True, False])
@pytest.mark.parametrize(("server", "node"), [(HOUR, 0), (0, HOUR), (HOUR, HOUR), (-HOUR, HOUR)])
async def test_store_and_picture_agree_before_and_after_a_restart(
    scene: Scene, tmp_path: Path, server: float, node: float, *, set_right: bool
) -> None:
    scene.server_ahead, scene.node_ahead = server, node
    for number in range(4):
        scene.report(60 * number, cpu=10.0 + number)
    if set_right:
        scene.server_ahead = scene.node_ahead = 0.0
    for number in range(4, 8):
        scene.report(60 * number, cpu=10.0 + number, rtt_nano=1000 * number)
    store, again = DuckDBStore(tmp_path), Scene()
    for report in scene.reports:
        await store.write(report)
    points = await store.latest("n1")
    (summary,) = await store.fleet()
    await store.aclose()
    again.server_ahead = scene.server_ahead
    for _ in again.live.recalling("n1", points, [], again.moment(430)):
        pass

    assert summary.system in points
    newest: Any = {point.group: point.data for point in points}
    assert cpu_of(scene.node(430)) == newest["system"].cpu_usage_percent == 17.0
    assert scene.view(430).rtt_nano == newest["latency"].rtt_nano == 7000
    assert cpu_of(again.node(430)) == 17.0
    assert again.view(430).rtt_nano == 7000
    for later in (430, 700):
        assert again.node(later).status == scene.node(later).status
    assert again.age(430) == pytest.approx(scene.age(430), abs=1)


def test_after_a_restart_what_came_last_replaces_what_was_ahead(scene: Scene) -> None:
    scene.node_ahead = 6 * HOUR
    scene.recall(scene.points(0, cpu=99.0), at(1), scene.moment(10))
    scene.node_ahead = 0.0
    scene.report(20, cpu=7.0)

    assert cpu_of(scene.node(22)) == 7.0


def test_a_node_read_from_a_store_with_moments_to_come_is_silent_in_time(scene: Scene) -> None:
    scene.recall(scene.points(0), at(HOUR), scene.moment(10))

    assert scene.node(100).status == "up"
    assert scene.node(161).status == "silent"


def test_a_node_that_reports_every_five_minutes_is_silent_after_two_and_a_half_of_them(
    scene: Scene,
) -> None:
    for number in range(6):
        scene.report(300 * number)

    assert scene.node(1501 + 160).silent_after_seconds == 750
    assert [scene.node(1501 + later).status for later in (160, 749, 751)] == ["up", "up", "silent"]


def test_a_node_that_delivered_its_past_and_no_present_is_silent_at_once(scene: Scene) -> None:
    past = [p for number in range(-120, -20) for p in scene.points(30.0 * number)]
    scene.live.observe(Report("n1", past, at(0)), scene.moment(0))

    assert scene.node(3).status == "silent"


def test_a_node_that_delivers_its_past_up_to_now_is_up(scene: Scene) -> None:
    past = [p for number in range(-120, 0) for p in scene.points(30.0 * number)]
    scene.live.observe(Report("n1", past, at(0)), scene.moment(0))

    assert scene.node(3).status == "up"


def test_a_first_report_with_old_stamps_is_of_a_node_that_is_up(scene: Scene) -> None:
    scene.node_ahead = -24 * HOUR
    scene.report(0)

    assert scene.node(3).status == "up"
