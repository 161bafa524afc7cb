from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest

from plexd.metrics.testing import system_point
from plexd.steps import finish
from plexd_server.mesh.alerts import link_alerts, node_alerts
from plexd_server.mesh.live import LiveMesh, Roster
from plexd_server.mesh.moment import Moment
from plexd_server.mesh.overview import (
    MeshAnswer,
    PeersAnswer,
    mesh,
    peers,
)
from plexd_server.registry import Node
from plexd_server.store import Loss, Report, StoredPoint
from support.answers import fleet_at
from support.readings import latency, reading, tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint
    from plexd_server.mesh.alerts import Alert
    from plexd_server.mesh.fleet import FleetAnswer
    from plexd_server.mesh.links import View
    from plexd_server.mesh.live import LiveNode

T = TypeVar("T")

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
DEAD = {"rtt_nano": -1, "loss": 100.0, "handshake_age": 400.0}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def roster_of(*nodes: Node | str) -> Roster:
    return Roster.of(Node(node, "", START) if isinstance(node, str) else node for node in nodes)


def moment(now: datetime, server_ahead: float = 0.0) -> Moment:
    """Return the moment at which the server's clock is so many seconds ahead of ``now``."""
    return Moment(now.timestamp() + server_ahead, (now - START).total_seconds())


def mesh_of(live: LiveMesh, now: datetime, *nodes: Node | str, **bound: int) -> MeshAnswer:
    live.update_roster(roster_of(*nodes))
    answer = mesh(live, live.snapshot(moment(now)), moment(now), **bound)
    return decoded(finish(answer), MeshAnswer)


def peers_of(live: LiveMesh, now: datetime, node: str) -> PeersAnswer:
    answer = peers(live, node, live.snapshot(moment(now)), moment(now))
    return decoded(finish(answer), PeersAnswer)


def decoded(answer: msgspec.Struct, kind: type[T]) -> T:
    return msgspec.json.decode(msgspec.json.encode(answer), type=kind)


def fleet_of(
    live: LiveMesh, now: datetime, *nodes: Node | str, server_ahead: float = 0.0
) -> FleetAnswer:
    live.update_roster(roster_of(*nodes))
    return fleet_at(live, moment(now, server_ahead))


def alerts_of(node: LiveNode, now: datetime) -> list[Alert]:
    return list(node_alerts(node, node.presence(moment(now)), moment(now)))


def report(
    live: LiveMesh,
    node: str,
    points: Sequence[MetricPoint],
    received: datetime | None = None,
    server_ahead: float = 0.0,
) -> None:
    then = moment(received or points[-1].timestamp, server_ahead)
    live.observe(Report(node, points, datetime.fromtimestamp(then.wall, UTC)), then)


def recall(
    live: LiveMesh,
    node: str,
    points: Sequence[StoredPoint],
    now: datetime,
    cpu: Sequence[tuple[float, float]] = (),
) -> None:
    for _ in live.recalling(node, points, cpu, moment(now)):
        pass


def view(live: LiveMesh, now: datetime, node: str = "n1", peer: str = "n2") -> View:
    (found,) = [v for v in live.snapshot(moment(now)).views[node] if v.peer_id == peer]
    return found


def test_a_reading_becomes_a_view_with_its_numbers() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), moved=1000))
    report(live, "n1", reading("n2", at(15), moved=2500, rx=4000, loss=5.0))

    found = view(live, at(20))

    assert (found.state, found.rtt_nano, found.loss_percent) == ("up", 14_000_000, 5.0)
    assert (found.rx_bytes_per_second, found.tx_bytes_per_second) == (200.0, 100.0)
    assert (found.handshake_age_seconds, found.since, found.measured_at) == (40.0, at(1), at(16))


def test_no_answer_is_no_round_trip() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), rtt_nano=-1))

    assert view(live, at(1)).rtt_nano is None


def test_a_single_lost_ping_changes_no_state_even_if_the_halves_of_its_reading_arrive_apart() -> (
    None
):
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))
    lost = reading("n2", at(15), rtt_nano=-1, handshake_age=200.0, rx=0, moved=500)
    report(live, "n1", lost[:1])
    live.drain()
    report(live, "n1", lost[1:])

    assert view(live, at(16)).state == "up"


def test_two_bad_readings_in_one_report_count_as_two() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))
    bad = [
        point
        for number in (1, 2)
        for point in reading(
            "n2", at(15 * number), rtt_nano=-1, handshake_age=400.0, rx=0, moved=500 * number
        )
    ]
    report(live, "n1", bad)

    found = view(live, at(31))
    assert (found.state, found.since) == ("down", at(16))


def test_the_views_of_a_silent_node_are_unknown() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))

    found = view(live, at(600))

    assert found.state == "unknown"
    assert found.reason.startswith("not read for 10 min; before that: answers in 14 ms")
    assert found.since == at(1 + 150)


def test_a_node_that_reports_rarely_is_not_silent_between_its_reports() -> None:
    live = LiveMesh()
    for number in range(4):
        report(live, "n1", reading("n2", at(300 * number)))

    assert view(live, at(900 + 290)).state == "up"


def test_a_peer_that_was_down_at_the_first_reading_is_down_since_its_keys_ended() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), rtt_nano=-1, loss=100.0, handshake_age=3780.0))

    assert view(live, at(2)).since == at(-3600)


def test_a_reading_that_arrives_late_does_not_replace_a_newer_one() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(60)))
    report(live, "n1", reading("n2", at(0), **DEAD))  # type: ignore[arg-type]

    assert view(live, at(61)).state == "up"


def test_a_counter_that_went_back_has_no_rate() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), moved=1000))
    report(live, "n1", reading("n2", at(15), moved=10))

    assert view(live, at(16)).rx_bytes_per_second is None


def test_a_peer_without_tunnel_is_judged_by_its_round_trips() -> None:
    live = LiveMesh()
    report(live, "n1", [latency("n2", at(0))])
    report(live, "n1", [latency("n2", at(15), -1)])
    assert view(live, at(16)).state == "up"

    report(live, "n1", [latency("n2", at(30), -1)])
    assert view(live, at(31)).state == "down"


def test_pings_that_stopped_long_ago_say_nothing() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))
    for number in range(1, 20):
        report(live, "n1", [tunnel("n2", at(15 * number), handshake_age=600.0)])

    found = view(live, at(286))
    assert (found.state, found.rtt_nano) == ("idle", None)


def test_pings_that_were_lost_before_they_stopped_say_nothing_either() -> None:
    live = LiveMesh()
    for number in range(20):
        now = at(15 * number)
        pings = [latency("n2", now, -1)] if number < 6 else []
        report(live, "n1", [tunnel("n2", now, handshake_age=150.0, moved=1000 * number), *pings])

    found = view(live, at(286))
    assert (found.state, found.reason.endswith("; handshake 150 s old")) == ("up", True)


def test_a_peer_that_is_not_read_any_more_leaves_the_snapshot() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))
    report(live, "n1", reading("n3", at(4000)))

    assert [found.peer_id for found in live.snapshot(moment(at(4001))).views["n1"]] == ["n3"]


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_a_clock_that_is_off_is_noticed_and_does_not_age_the_readings(ahead: float) -> None:
    live = LiveMesh()
    for number in range(5):
        then = at(60 * number)
        report(live, "n1", reading("n2", then + timedelta(seconds=ahead)), then)
    now = at(250)

    found = view(live, now)
    (alert,) = alerts_of(live.nodes["n1"], now)

    assert found.state == "up"
    assert now - timedelta(seconds=60) < found.measured_at <= now
    assert alert.text == f"its clock is 10 min {'ahead' if ahead > 0 else 'behind'}"


def test_a_clock_that_was_ahead_and_is_set_right_hides_nothing() -> None:
    live = LiveMesh()
    report(live, "n1", [system_point(at(7200)), *reading("n2", at(7200))], at(0))
    report(live, "n1", [system_point(at(60)), *reading("n2", at(60), moved=5)], at(61))

    assert view(live, at(62)).rx_bytes == 5
    assert live.nodes["n1"].row.offset == 0.0
    row = live.nodes["n1"].row
    assert (row.system_at, row.system) == (at(60).timestamp(), system_point(at(60)).data)


def test_peers_without_room_are_left_out_and_counted_in_a_flood_too() -> None:
    live = LiveMesh(max_waiting=10**9)
    report(live, "n1", [latency(f"peer-{number}", at(0)) for number in range(1024)])
    for wave in range(20):
        report(live, "n1", [latency(f"other-{wave}-{number}", at(1)) for number in range(5000)])
    live.drain()

    assert live.left_out == 100_000


def test_a_backlog_is_not_a_slow_clock() -> None:
    live = LiveMesh()
    for number in range(8):
        report(live, "n1", reading("n2", at(300 * number)), at(7200 + 30 * number))
    live.drain()

    assert live.nodes["n1"].row.offset == 0.0


def test_the_queue_is_bounded_and_its_newest_points_are_read() -> None:
    live = LiveMesh(max_waiting=4)
    for number in range(5):
        report(live, "n1", reading("n2", at(15 * number), moved=1000 * number))

    assert (live.waiting, live.skipped) == (4, 6)
    assert view(live, at(61)).rx_bytes == 4000


def test_a_flood_of_one_node_costs_no_other_node_a_reading() -> None:
    live = LiveMesh(max_waiting=100)
    report(live, "n2", reading("n1", at(0)))
    for number in range(100):
        flood = [latency(f"p{number}-{peer}", at(number)) for peer in range(30)]
        report(live, "n1", flood, at(number))
    report(live, "n3", reading("n1", at(100)))

    assert (live.waiting, live.skipped) == (94, 2910)
    live.drain(60)
    assert [bool(live.look_up(name).row.peers) for name in ("n2", "n3")] == [True, True]
    assert view(live, at(102), "n2", "n1").state == "up"


def test_views_are_bounded_and_what_is_left_out_is_counted() -> None:
    live = LiveMesh(max_views=2)
    report(live, "n1", [latency(f"peer-{number}", at(0)) for number in range(5)])
    report(live, "n2", [latency("peer-0", at(0))])
    snapshot = live.snapshot(moment(at(1)))

    assert [len(views) for views in snapshot.views.values()] == [2, 0]
    assert live.left_out == 4


def test_an_expired_peer_makes_room_for_another() -> None:
    live = LiveMesh(max_views=1)
    report(live, "n1", [latency("n2", at(0))])
    report(live, "n1", [latency("n3", at(4000))])
    report(live, "n1", [latency("n3", at(8000))])
    report(live, "n1", [latency("n4", at(9000))])

    assert [found.peer_id for found in live.snapshot(moment(at(9001))).views["n1"]] == ["n3"]
    assert live.left_out == 1


def test_a_forgotten_node_makes_room_for_another() -> None:
    live = LiveMesh(max_views=1)
    report(live, "n1", [latency("n2", at(0))])
    live.snapshot(moment(at(0)))
    live.forget(["n1"])
    report(live, "n3", [latency("n2", at(1))])

    assert list(live.snapshot(moment(at(1))).views) == ["n3"]


def test_stored_points_fill_in_and_never_replace_newer_ones() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(60), moved=2000))
    live.drain()
    point = reading("n2", at(0), moved=1000)[0]
    old = [
        StoredPoint(
            timestamp=point.timestamp,
            received_at=at(1),
            group=point.group,
            peer_id=point.peer_id,
            data=point.data,
        )
    ]
    recall(live, "n1", old, at(0))
    recall(live, "n3", old, at(0), [(at(0).timestamp(), 12.0)])

    assert view(live, at(61)).rx_bytes == 2000
    assert view(live, at(61), "n3").rx_bytes == 1000
    assert live.nodes["n3"].row.history[-1][1] == 12.0


def test_the_mesh_names_registered_silent_waiting_and_foreign_nodes() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)) + reading("laptop", at(0)))
    report(live, "n2", reading("n1", at(500)))

    answer = mesh_of(live, at(510), "n1", "n2", "n3")

    statuses = {node.node_id: node.status for node in answer.nodes}
    assert statuses == {"n1": "silent", "n2": "up", "n3": "waiting", "laptop": "foreign"}
    assert [link.id for link in answer.links] == ["laptop~n1", "n1~n2"]


@pytest.mark.parametrize("names", [("n2", "KEY="), ("KEY=", "n2")])
def test_of_a_peer_read_by_its_id_and_by_its_key_the_last_reading_counts(
    names: tuple[str, str],
) -> None:
    live = LiveMesh()
    live.update_roster(roster_of(Node("n2", "", START, public_key="KEY=")))
    for number, name in enumerate([*names, "n2"]):
        report(live, "n1", reading(name, at(300 * number)))

    assert (view(live, at(601)).state, view(live, at(601)).measured_at) == ("up", at(601))


def test_peers_that_were_revoked_are_left_out() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)) + reading("KEY=", at(0)) + reading("n3", at(0)))
    revoked = Node("n2", "", START, public_key="KEY=", revoked_at=at(0))

    answer = mesh_of(live, at(1), "n1", revoked, "n3")

    assert ([link.id for link in answer.links], len(answer.nodes)) == (["n1~n3"], 2)


def test_a_tunnel_that_is_cut_is_one_way_long_before_its_keys_end() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), moved=1000))
    for number in range(1, 6):
        dead = reading(
            "n2", at(15 * number), rtt_nano=-1, loss=5.0 * number, handshake_age=60.0 + 15 * number,
            rx=1000, moved=1000 + 148 * number,
        )  # fmt: skip
        report(live, "n1", dead)

    found = view(live, at(76))
    assert (found.state, found.since) == ("one-way", at(61))


def test_a_peer_without_a_tunnel_that_never_answered_raises_no_alert() -> None:
    live = LiveMesh()
    for number in range(3):
        report(live, "n1", [latency("n2", at(15 * number), -1)])

    (link,) = live.snapshot(moment(at(31))).links
    assert (link.state, list(link_alerts([link], frozenset()))) == ("unknown", [])


def test_the_loss_of_an_old_reading_raises_no_alert() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), loss=80.0))

    (link,) = live.snapshot(moment(at(600))).links
    assert (link.state, list(link_alerts([link], frozenset()))) == ("unknown", [])


def test_a_node_owes_no_report_for_the_time_the_server_was_not_running() -> None:
    live = LiveMesh()
    data = system_point(at(0)).data
    point = StoredPoint(timestamp=at(0), received_at=at(0), group="system", data=data)
    recall(live, "n1", [point], at(600))

    node = live.nodes["n1"]
    assert [alerts_of(node, at(s)) for s in (601, 749)] == [[], []]
    (late,) = alerts_of(node, at(751))
    assert late.text == "no report for 13 min"


def test_a_peer_read_by_its_public_key_is_the_node_with_that_key() -> None:
    live = LiveMesh()
    live.update_roster(roster_of(Node("n2", "", START, public_key="KEY=")))
    report(live, "n1", reading("KEY=", at(0)))
    report(live, "n2", reading("n1", at(0)))

    (link,) = peers_of(live, at(1), "n2").links

    assert (link.id, link.a_to_b is None, link.b_to_a is None) == ("n1~n2", False, False)


def test_the_fleet_has_a_number_a_minute_and_null_where_there_is_none() -> None:
    live = LiveMesh()
    report(live, "n1", [system_point(at(0))])
    report(live, "n1", [system_point(at(180))])

    (node,) = fleet_of(live, at(185), "n1").nodes

    assert len(node.cpu_history) == 60
    assert [value is None for value in node.cpu_history[-4:]] == [False, True, True, False]


def test_a_simulated_node_is_marked() -> None:
    live = LiveMesh()
    enrolled = Node("n1", "", START, metadata={"simulated": "yes"})

    answer = fleet_of(live, at(0), "sim-berlin", "n2", enrolled)

    assert [node.simulated for node in answer.nodes] == [True, False, True]


def test_every_answer_can_be_encoded() -> None:
    live = LiveMesh()
    report(live, "n1", [system_point(at(0)), *reading("n2", at(0))])

    for answer in (
        mesh_of(live, at(1), "n1"),
        fleet_of(live, at(1), "n1"),
        peers_of(live, at(1), "n1"),
    ):
        assert msgspec.json.decode(msgspec.json.encode(answer))["now"] == "2026-02-12T10:30:01Z"


def texts(live: LiveMesh, now: datetime, *names: str) -> list[str]:
    return [alert.text for alert in fleet_of(live, now, *names).alerts]


def test_a_healthy_fleet_has_no_alerts() -> None:
    live = LiveMesh()
    report(live, "n1", [system_point(at(0)), *reading("n2", at(0))])

    assert texts(live, at(1), "n1", "n2") == []


def test_a_silent_node_is_one_alert_and_its_links_are_none() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))
    for name in ("n2", "n3"):
        report(live, name, reading("n1", at(600), **DEAD))  # type: ignore[arg-type]

    assert texts(live, at(601), "n1", "n2", "n3") == ["no report for 10 min"]


def test_one_bad_link_is_one_alert_and_several_of_a_node_are_one_too() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), **DEAD))  # type: ignore[arg-type]
    (one,) = fleet_of(live, at(1), "n1", "n2").alerts
    assert (one.kind, one.link_id, one.node_ids) == ("link", "n1~n2", ("n1", "n2"))

    for peer in ("n3", "n4"):
        report(live, "n1", reading(peer, at(0), **DEAD))  # type: ignore[arg-type]
    (alert,) = link_alerts(mesh_of(live, at(2), "n1").links, frozenset())
    assert (alert.node_ids, alert.text) == (("n1",), "3 links are bad (3 down)")


@pytest.mark.slow
def test_a_flood_of_bad_links_is_summed_up_in_few_alerts() -> None:
    live = LiveMesh()
    for node in range(40):
        points = [
            point
            for peer in range(150)
            for point in reading(f"p{node % 8}-{peer}", at(0), **DEAD)  # type: ignore[arg-type]
        ]
        report(live, f"n{node}", points)

    answer = fleet_of(live, at(1), *(f"n{node}" for node in range(40)))

    assert {alert.text for alert in answer.alerts} == {"150 links are bad (150 down)"}
    assert (len(answer.alerts), answer.alerts_left_out) == (40, 0)


def test_a_snapshot_built_in_steps_is_used_until_it_is_old() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)))

    assert len(list(live.building(moment(at(1))))) > 0
    assert list(live.building(moment(at(1)))) == []
    assert [peers_of(live, at(1), name).links for name in ("n1", "n2", "n3")] == [
        mesh_of(live, at(1), "n1").links, peers_of(live, at(1), "n1").links, [],
    ]  # fmt: skip


def test_a_report_makes_a_node_known_though_the_snapshot_is_still_fresh() -> None:
    live = LiveMesh()
    live.snapshot(moment(at(0)))
    report(live, "n1", reading("n2", at(0)), at(0))
    before = live.snapshot(moment(at(0.5)))

    assert live.look_up("n1").presence(moment(at(0.5))).status == "up"
    assert before.links == []


def test_a_view_and_a_link_are_made_again_only_for_a_new_reading() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0)) + reading("n3", at(0)))
    first = live.snapshot(moment(at(2))).links
    report(live, "n1", reading("n2", at(15)))
    then = live.snapshot(moment(at(16))).links

    assert [a is b for a, b in zip(first, then, strict=True)] == [False, True]


def test_a_link_that_is_up_and_loses_many_pings_is_an_alert() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), loss=30.0))

    (alert,) = fleet_of(live, at(1), "n1").alerts
    assert (alert.kind, alert.severity) == ("loss", "warn")


def test_a_peer_that_answers_has_not_lost_all_its_pings() -> None:
    live = LiveMesh()
    report(live, "n1", reading("n2", at(0), **DEAD))  # type: ignore[arg-type]
    report(live, "n1", reading("n2", at(15), loss=100.0))

    found = view(live, at(17))
    assert (found.state, found.loss_percent) == ("up", None)
    assert found.reason == "answers in 14 ms; handshake 40 s old"
    assert texts(live, at(17), "n1", "n2") == []


def test_a_full_disk_is_an_alert() -> None:
    live = LiveMesh()
    point = system_point(at(0))
    stats = msgspec.structs.replace(
        point.data,  # type: ignore[type-var]
        disk_used_bytes=98 * 2**30,
        disk_total_bytes=100 * 2**30,
    )
    report(live, "n1", [msgspec.structs.replace(point, data=stats)])

    (alert,) = fleet_of(live, at(1), "n1").alerts
    assert (alert.severity, alert.text) == ("bad", "disk 98 % full, 2 GiB left")


def test_the_losses_of_the_last_day_are_an_alert_with_their_reason() -> None:
    live = LiveMesh()
    report(live, "n1", [system_point(at(0))])
    loss = Loss(reason="evicted", since=None, until=at(0), noticed_at=at(0), points=1200)
    live.set_losses("n1", [loss, msgspec.structs.replace(loss, reason="put_back")])

    assert texts(live, at(1), "n1") == ["1,200 points lost within 24 h: on the node"]
    report(live, "n1", [system_point(at(90_000))])
    assert texts(live, at(90_001), "n1") == []


def test_what_arrives_while_a_snapshot_is_built_is_read_for_the_next() -> None:
    """Else all of it would be read in one step at the end."""
    live = LiveMesh()
    report(live, "n1", [p for n in range(500) for p in reading(f"p{n}", at(0))])
    live.drain()
    building = live.building(moment(at(1)))
    next(building)
    report(live, "n2", reading("n1", at(1)))

    snapshot = finish(building)

    assert (len(snapshot.links), live.waiting) == (500, 2)
