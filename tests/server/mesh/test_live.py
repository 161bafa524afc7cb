from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.metrics.testing import system_point
from plexd_server.mesh.alerts import link_alerts, node_alerts
from plexd_server.mesh.live import LiveMesh
from plexd_server.mesh.overview import fleet, mesh, peers
from plexd_server.registry import Node
from plexd_server.store import Loss, StoredPoint
from support.readings import latency, reading, tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint
    from plexd_server.mesh.links import View

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
DEAD = {"rtt_nano": -1, "loss": 100.0, "handshake_age": 400.0}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def registered(*names: str) -> list[Node]:
    return [Node(name, "", START) for name in names]


def tell(
    board: LiveMesh, node: str, points: Sequence[MetricPoint], received: datetime | None = None
) -> None:
    board.observe(node, points, received or points[-1].timestamp)


def view(board: LiveMesh, now: datetime, node: str = "n1", peer: str = "n2") -> View:
    (found,) = [v for v in board.picture(now).views[node] if v.peer_id == peer]
    return found


def test_a_reading_becomes_a_view_with_its_numbers() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), moved=1000))
    tell(board, "n1", reading("n2", at(15), moved=2500, rx=4000, loss=5.0))

    found = view(board, at(20))

    assert (found.state, found.rtt_nano, found.loss_percent) == ("up", 14_000_000, 5.0)
    assert (found.rx_bytes_per_second, found.tx_bytes_per_second) == (200.0, 100.0)
    assert (found.handshake_age_seconds, found.since, found.measured_at) == (40.0, at(1), at(16))


def test_no_answer_is_no_round_trip() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), rtt_nano=-1))

    assert view(board, at(1)).rtt_nano is None


def test_a_single_lost_ping_changes_no_state_even_when_its_halves_come_apart() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))
    lost = reading("n2", at(15), rtt_nano=-1, handshake_age=200.0, rx=0, moved=500)
    tell(board, "n1", lost[:1])
    board.settle()
    tell(board, "n1", lost[1:])

    assert view(board, at(16)).state == "up"


def test_two_bad_readings_in_one_report_are_two() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))
    bad = [
        point
        for number in (1, 2)
        for point in reading(
            "n2", at(15 * number), rtt_nano=-1, handshake_age=400.0, rx=0, moved=500 * number
        )
    ]
    tell(board, "n1", bad)

    found = view(board, at(31))
    assert (found.state, found.since) == ("down", at(16))


def test_a_node_that_falls_silent_knows_nothing_any_more() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))

    found = view(board, at(600))

    assert found.state == "unknown"
    assert found.reason.startswith("not read for 10 min; before that: answers in 14 ms")
    assert found.since == at(1 + 150)


def test_a_node_that_reports_rarely_is_not_silent_between_its_reports() -> None:
    board = LiveMesh()
    for number in range(4):
        tell(board, "n1", reading("n2", at(300 * number)))

    assert view(board, at(900 + 290)).state == "up"


def test_what_was_down_before_anybody_looked_is_down_since_its_keys_ended() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), rtt_nano=-1, loss=100.0, handshake_age=3780.0))

    assert view(board, at(2)).since == at(-3600)


def test_readings_that_come_late_do_not_turn_time_back() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(60)))
    tell(board, "n1", reading("n2", at(0), **DEAD))  # type: ignore[arg-type]

    assert view(board, at(61)).state == "up"


def test_a_counter_that_went_back_has_no_rate() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), moved=1000))
    tell(board, "n1", reading("n2", at(15), moved=10))

    assert view(board, at(16)).rx_bytes_per_second is None


def test_a_peer_without_tunnel_is_judged_by_its_round_trips() -> None:
    board = LiveMesh()
    tell(board, "n1", [latency("n2", at(0))])
    tell(board, "n1", [latency("n2", at(15), -1)])
    assert view(board, at(16)).state == "up"

    tell(board, "n1", [latency("n2", at(30), -1)])
    assert view(board, at(31)).state == "down"


def test_pings_that_stopped_long_ago_say_nothing() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))
    for number in range(1, 20):
        tell(board, "n1", [tunnel("n2", at(15 * number), handshake_age=600.0)])

    found = view(board, at(286))
    assert (found.state, found.rtt_nano) == ("idle", None)


def test_pings_that_were_lost_before_they_stopped_say_nothing_either() -> None:
    board = LiveMesh()
    for number in range(20):
        now = at(15 * number)
        pings = [latency("n2", now, -1)] if number < 6 else []
        tell(board, "n1", [tunnel("n2", now, handshake_age=150.0, moved=1000 * number), *pings])

    found = view(board, at(286))
    assert (found.state, found.reason.endswith("; handshake 150 s old")) == ("up", True)


def test_a_peer_that_is_not_read_any_more_leaves_the_picture() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))
    tell(board, "n1", reading("n3", at(4000)))

    assert [found.peer_id for found in board.picture(at(4001)).views["n1"]] == ["n3"]


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_a_clock_that_is_off_is_noticed_and_does_not_age_the_readings(ahead: float) -> None:
    board = LiveMesh()
    for number in range(5):
        moment = at(60 * number)
        tell(board, "n1", reading("n2", moment + timedelta(seconds=ahead)), moment)
    now = at(250)

    found = view(board, now)
    (alert,) = node_alerts(board.node("n1"), now.timestamp())

    assert found.state == "up"
    assert now - timedelta(seconds=60) < found.measured_at <= now
    assert alert.text == f"its clock is 10 min {'ahead' if ahead > 0 else 'behind'}"


def test_a_clock_that_was_ahead_and_is_set_right_hides_nothing() -> None:
    board = LiveMesh()
    tell(board, "n1", [system_point(at(7200)), *reading("n2", at(7200))], at(0))
    tell(board, "n1", [system_point(at(60)), *reading("n2", at(60), moved=5)], at(61))

    assert view(board, at(62)).rx_bytes == 5
    assert board.node("n1").offset == 0.0
    assert board.node("n1").system == (at(60).timestamp(), system_point(at(60)).data)


def test_a_storm_of_peers_that_find_no_room_costs_little() -> None:
    board = LiveMesh(max_waiting=10**9)
    tell(board, "n1", [latency(f"peer-{number}", at(0)) for number in range(4096)])
    for wave in range(20):
        tell(board, "n1", [latency(f"other-{wave}-{number}", at(1)) for number in range(5000)])
    board.settle()

    assert board.unseen == 100_000


def test_a_backlog_is_not_a_slow_clock() -> None:
    board = LiveMesh()
    for number in range(8):
        tell(board, "n1", reading("n2", at(300 * number)), at(7200 + 30 * number))

    assert board.node("n1").offset == 0.0


def test_the_line_is_bounded_and_its_newest_points_are_read() -> None:
    board = LiveMesh(max_waiting=4)
    for number in range(5):
        tell(board, "n1", reading("n2", at(15 * number), moved=1000 * number))

    assert (board.waiting, board.skipped) == (4, 6)
    assert view(board, at(61)).rx_bytes == 4000


def test_views_are_bounded_and_what_is_left_out_is_counted() -> None:
    board = LiveMesh(max_views=2)
    tell(board, "n1", [latency(f"peer-{number}", at(0)) for number in range(5)])
    tell(board, "n2", [latency("peer-0", at(0))])
    picture = board.picture(at(1))

    assert [len(views) for views in picture.views.values()] == [2, 0]
    assert board.unseen == 4


def test_the_place_of_a_peer_that_is_gone_is_taken() -> None:
    board = LiveMesh(max_views=1)
    tell(board, "n1", [latency("n2", at(0))])
    tell(board, "n1", [latency("n3", at(4000))])
    tell(board, "n1", [latency("n3", at(8000))])
    tell(board, "n1", [latency("n4", at(9000))])

    assert [found.peer_id for found in board.picture(at(9001)).views["n1"]] == ["n3"]
    assert board.unseen == 2


def test_a_revoked_node_is_let_go_of() -> None:
    board = LiveMesh(max_views=1)
    tell(board, "n1", [latency("n2", at(0))])
    board.picture(at(0))
    board.keep_only(["n3"])
    tell(board, "n3", [latency("n2", at(1))])

    assert list(board.picture(at(1)).views) == ["n3"]


def test_what_a_store_remembers_fills_in_and_never_replaces() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(60), moved=2000))
    board.settle()
    point = reading("n2", at(0), moved=1000)[0]
    old = [
        StoredPoint(
            timestamp=point.timestamp,
            received_at=at(1),
            group=point.group,
            peer_id=point.peer_id,
            data=point.data,  # type: ignore[arg-type]
        )
    ]
    board.recall("n1", old, [], at(0))
    board.recall("n3", old, [(at(0).timestamp(), 12.0)], at(0))

    assert view(board, at(61)).rx_bytes == 2000
    assert view(board, at(61), "n3").rx_bytes == 1000
    assert board.node("n3").history[-1][1] == 12.0


def test_the_mesh_names_registered_silent_waiting_and_foreign_nodes() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)) + reading("laptop", at(0)))
    tell(board, "n2", reading("n1", at(500)))

    answer = mesh(board, registered("n1", "n2", "n3"), at(510))

    statuses = {node.node_id: node.status for node in answer.nodes}
    assert statuses == {"n1": "silent", "n2": "up", "n3": "waiting", "laptop": "foreign"}
    assert [link.id for link in answer.links] == ["laptop~n1", "n1~n2"]


@pytest.mark.parametrize("names", [("n2", "KEY="), ("KEY=", "n2")])
def test_a_peer_read_of_by_its_key_for_a_while_is_what_was_read_last(
    names: tuple[str, str],
) -> None:
    board = LiveMesh()
    board.names = {"KEY=": "n2"}
    for number, name in enumerate([*names, "n2"]):
        tell(board, "n1", reading(name, at(300 * number)))

    assert (view(board, at(601)).state, view(board, at(601)).measured_at) == ("up", at(601))


def test_peers_that_were_revoked_are_left_out() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)) + reading("KEY=", at(0)) + reading("n3", at(0)))
    board.gone = {"n2", "KEY="}

    answer = mesh(board, registered("n1", "n3"), at(1))

    assert ([link.id for link in answer.links], len(answer.nodes)) == (["n1~n3"], 2)


def test_a_tunnel_that_is_cut_is_one_way_long_before_its_keys_end() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), moved=1000))
    for number in range(1, 6):
        dead = reading(
            "n2", at(15 * number), rtt_nano=-1, loss=5.0 * number, handshake_age=60.0 + 15 * number,
            rx=1000, moved=1000 + 148 * number,
        )  # fmt: skip
        tell(board, "n1", dead)

    found = view(board, at(76))
    assert (found.state, found.since) == ("one-way", at(61))


def test_a_peer_without_a_tunnel_that_never_answered_raises_no_alert() -> None:
    board = LiveMesh()
    for number in range(3):
        tell(board, "n1", [latency("n2", at(15 * number), -1)])

    (link,) = board.picture(at(31)).links
    assert (link.state, list(link_alerts([link], frozenset()))) == ("unknown", [])


def test_the_loss_of_an_old_reading_raises_no_alert() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), loss=80.0))

    (link,) = board.picture(at(600)).links
    assert (link.state, list(link_alerts([link], frozenset()))) == ("unknown", [])


def test_a_node_owes_no_report_while_the_server_was_away() -> None:
    board = LiveMesh()
    data = system_point(at(0)).data
    point = StoredPoint(timestamp=at(0), received_at=at(0), group="system", data=data)  # type: ignore[arg-type]
    board.recall("n1", [point], [], at(600))

    node = board.node("n1")
    assert [list(node_alerts(node, at(s).timestamp())) for s in (601, 749)] == [[], []]
    (late,) = node_alerts(node, at(751).timestamp())
    assert late.text == "no report for 13 min"


def test_a_peer_read_of_by_its_public_key_is_the_node_with_that_key() -> None:
    board = LiveMesh()
    board.names = {"KEY=": "n2"}
    tell(board, "n1", reading("KEY=", at(0)))
    tell(board, "n2", reading("n1", at(0)))

    (link,) = peers(board, "n2", at(1)).links

    assert (link.id, link.a_to_b is None, link.b_to_a is None) == ("n1~n2", False, False)


def test_the_fleet_has_a_number_a_minute_and_null_where_there_is_none() -> None:
    board = LiveMesh()
    tell(board, "n1", [system_point(at(0))])
    tell(board, "n1", [system_point(at(180))])

    (node,) = fleet(board, registered("n1"), at(185)).nodes

    assert len(node.cpu_history) == 60
    assert [value is None for value in node.cpu_history[-4:]] == [False, True, True, False]


def test_a_simulated_node_says_so() -> None:
    board = LiveMesh()
    enrolled = Node("n1", "", START, metadata={"simulated": "yes"})

    answer = fleet(board, [*registered("sim-berlin", "n2"), enrolled], at(0))

    assert [node.simulated for node in answer.nodes] == [True, False, True]


def test_every_answer_can_be_encoded() -> None:
    board = LiveMesh()
    tell(board, "n1", [system_point(at(0)), *reading("n2", at(0))])
    nodes = registered("n1")

    for answer in (
        mesh(board, nodes, at(1)),
        fleet(board, nodes, at(1)),
        peers(board, "n1", at(1)),
    ):
        assert msgspec.json.decode(msgspec.json.encode(answer))["now"] == "2026-02-12T10:30:01Z"


def texts(board: LiveMesh, now: datetime, *names: str) -> list[str]:
    return [alert.text for alert in fleet(board, registered(*names), now).alerts]


def test_a_healthy_fleet_has_no_alerts() -> None:
    board = LiveMesh()
    tell(board, "n1", [system_point(at(0)), *reading("n2", at(0))])

    assert texts(board, at(1), "n1", "n2") == []


def test_a_silent_node_is_one_alert_and_its_links_are_none() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))
    for name in ("n2", "n3"):
        tell(board, name, reading("n1", at(600), **DEAD))  # type: ignore[arg-type]

    assert texts(board, at(601), "n1", "n2", "n3") == ["no report for 10 min"]


def test_one_bad_link_is_one_alert_and_several_of_a_node_are_one_too() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), **DEAD))  # type: ignore[arg-type]
    (one,) = fleet(board, registered("n1", "n2"), at(1)).alerts
    assert (one.kind, one.link_id, one.node_ids) == ("link", "n1~n2", ("n1", "n2"))

    for peer in ("n3", "n4"):
        tell(board, "n1", reading(peer, at(0), **DEAD))  # type: ignore[arg-type]
    (alert,) = link_alerts(mesh(board, registered("n1"), at(2)).links, frozenset())
    assert (alert.node_ids, alert.text) == (("n1",), "3 links are bad (3 down)")


@pytest.mark.slow
def test_a_storm_of_bad_links_is_summed_up_quickly_and_in_few_lines() -> None:
    board = LiveMesh()
    for node in range(40):
        points = [
            point
            for peer in range(150)
            for point in reading(f"p{node % 8}-{peer}", at(0), **DEAD)  # type: ignore[arg-type]
        ]
        tell(board, f"n{node}", points)

    answer = fleet(board, registered(*(f"n{node}" for node in range(40))), at(1))

    assert {alert.text for alert in answer.alerts} == {"150 links are bad (150 down)"}
    assert (len(answer.alerts), answer.alerts_left_out) == (40, 0)


def test_a_picture_drawn_in_pieces_is_the_one_that_is_shown() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)))

    assert len(list(board.drawing(at(1)))) > 0
    assert list(board.drawing(at(1))) == []
    assert board.picture(at(1)).links_of["n2"] == board.picture(at(1)).links


def test_a_view_and_a_link_are_made_anew_only_for_a_new_reading() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0)) + reading("n3", at(0)))
    first = board.picture(at(2)).links
    tell(board, "n1", reading("n2", at(15)))
    then = board.picture(at(16)).links

    assert [a is b for a, b in zip(first, then, strict=True)] == [False, True]


def test_a_link_that_loses_much_is_told_though_it_is_up() -> None:
    board = LiveMesh()
    tell(board, "n1", reading("n2", at(0), loss=30.0))

    (alert,) = fleet(board, registered("n1"), at(1)).alerts
    assert (alert.kind, alert.severity) == ("loss", "warn")


def test_a_full_disk_is_told() -> None:
    board = LiveMesh()
    point = system_point(at(0))
    stats = msgspec.structs.replace(
        point.data,  # type: ignore[type-var]
        disk_used_bytes=98 * 2**30,
        disk_total_bytes=100 * 2**30,
    )
    tell(board, "n1", [msgspec.structs.replace(point, data=stats)])

    (alert,) = fleet(board, registered("n1"), at(1)).alerts
    assert (alert.severity, alert.text) == ("bad", "disk 98 % full, 2 GiB left")


def test_losses_of_the_last_day_are_told_with_their_reason() -> None:
    board = LiveMesh()
    tell(board, "n1", [system_point(at(0))])
    board.settle()
    board.node("n1").losses = [
        Loss(reason="evicted", since=None, until=at(0), noticed_at=at(0), points=1200, batches=12)
    ]

    assert texts(board, at(1), "n1") == ["1,200 points lost within 24 h: on the node"]
    tell(board, "n1", [system_point(at(90_000))])
    assert texts(board, at(90_001), "n1") == []
