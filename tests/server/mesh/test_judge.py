"""`judge` as a value, and how long the event loop is held by the worst that can come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.api import Receipt
from plexd.clock import SystemClock
from plexd.metrics.testing import system_point
from plexd.steps import finish
from plexd_server.mesh.feed import ObservedStore, feeding
from plexd_server.mesh.fleet import fleet
from plexd_server.mesh.judge import Readings, judge
from plexd_server.mesh.live import LiveMesh, Roster
from plexd_server.mesh.moment import Moment
from plexd_server.mesh.node import NodeRow
from plexd_server.mesh.overview import mesh, peers
from plexd_server.registry import Node
from plexd_server.store import Ledger, Report, Series, StoredPoint, Written
from support.callbacks import MOST_SECONDS, longest_callback
from support.readings import latency, reading, tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def moment(seconds: float) -> Moment:
    return Moment(at(seconds).timestamp(), seconds)


def row_of(*points: MetricPoint, when: float = 60.0, **more: Any) -> NodeRow:
    return judge(NodeRow(node_id="n1"), Readings(points, moment(when), **more))


PEERS = st.sampled_from(["n2", "n3", "KEY=", "stranger-1", "stranger-2"])
POINTS = st.lists(
    st.one_of(
        st.builds(tunnel, PEERS, st.integers(-8000, 90_000).map(at), moved=st.integers(0, 9)),
        st.builds(latency, PEERS, st.integers(-8000, 90_000).map(at), st.sampled_from([-1, 9])),
        st.builds(system_point, st.integers(-8000, 90_000).map(at)),
    ),
    max_size=30,
)
DELIVERIES = st.lists(st.tuples(st.integers(0, 9000), POINTS), max_size=4)


def judged(deliveries: Sequence[tuple[int, Sequence[MetricPoint]]], piece: int) -> NodeRow:
    row, now = NodeRow(node_id="n1"), 0
    for passed, points in deliveries:
        now += passed
        for first in range(0, len(points), piece):
            some = points[first : first + piece]
            row = judge(row, Readings(some, moment(now), frozenset({"n2", "n3", "KEY="}), 1))
    return row


@given(DELIVERIES, st.integers(1, 9))
def test_readings_judged_in_pieces_give_the_same_row(
    deliveries: list[tuple[int, list[MetricPoint]]], piece: int
) -> None:
    assert judged(deliveries, piece) == judged(deliveries, 1000)


@given(DELIVERIES)
def test_a_row_is_bounded_stays_as_it_was_and_is_the_same_out_of_messagepack(
    deliveries: list[tuple[int, list[MetricPoint]]],
) -> None:
    row = judged(deliveries, 1000)
    packed = msgspec.msgpack.encode(row)
    judge(row, Readings([tunnel("n2", at(95_000), moved=10)], moment(95_000)))

    assert msgspec.msgpack.encode(row) == packed
    assert msgspec.msgpack.decode(packed, type=NodeRow) == row
    assert sum(name.startswith("stranger") for name in row.peers) <= 1


def test_registered_peers_have_room_however_many_foreign_ones_there_are() -> None:
    strangers = [latency(f"stranger-{number}", at(0)) for number in range(2000)]
    row = row_of(*strangers, latency("n2", at(0)), registered=frozenset({"n2"}))

    assert (len(row.peers), row.foreign, row.left_out) == (1025, 1024, 976)
    assert "n2" in row.peers


def test_foreign_peers_that_expired_make_room() -> None:
    row = row_of(latency("old", at(0)), most_foreign=1)
    row = judge(row, Readings([latency("new", at(4000))], moment(4000), most_foreign=1))

    assert (list(row.peers), row.foreign) == (["new"], 1)


def test_foreign_peers_that_were_registered_meanwhile_make_room() -> None:
    row = row_of(latency("n2", at(0)), most_foreign=1)
    known = frozenset({"n2"})
    row = judge(row, Readings([latency("new", at(9))], moment(9), known, most_foreign=1))

    assert (sorted(row.peers), row.foreign) == (["n2", "new"], 1)


def test_a_clock_set_back_within_one_report_makes_the_points_after_it_the_newest() -> None:
    row = row_of(*reading("n2", at(3600), moved=9), *reading("n2", at(60), moved=5))

    assert (row.newest, row.peers["n2"].rx) == (at(61).timestamp(), 5)


def test_an_old_batch_that_comes_late_is_no_newer() -> None:
    row = row_of(system_point(at(60)), *reading("n2", at(60), moved=9))
    after = judge(row, Readings([system_point(at(0)), *reading("n2", at(0))], moment(70)))

    assert (after.system, after.peers) == (row.system, row.peers)


class FilledStore:
    """Has ten thousand peers of a node, and accepts everything."""

    def __init__(self, points: Sequence[StoredPoint]) -> None:
        self._points = points
        self.was_recalled = asyncio.Event()

    async def write(self, report: Report) -> Written:
        return Written(Receipt(len(report.points)), report.points)

    async def latest(self, node_id: str) -> Sequence[StoredPoint]:
        assert node_id
        return self._points

    async def series(self, query: Any) -> Series:
        return Series([], {field: [] for field in query.fields}, {}, {})

    async def ledger(self, node_id: str) -> Ledger:
        assert node_id
        self.was_recalled.set()
        return Ledger()


class Listed:
    def __init__(self, *names: str) -> None:
        self._nodes = [Node(name, "", START) for name in names]

    def nodes(self, *, revoked: bool = False) -> list[Node]:
        assert revoked
        return self._nodes


def floods() -> dict[str, list[list[MetricPoint]]]:
    """Reports of 10,000 points, each the worst of its kind."""
    many = range(10_000)
    ahead = [at(3600 if number % 2 else 0) for number in many]
    return {
        "peers of one report": [[latency(f"p{number}", at(0)) for number in many]],
        "others in each report": [
            [latency(f"{wave}-{number}", at(wave)) for number in many] for wave in range(3)
        ],
        "a clock back and forth": [
            [latency(f"p{number % 5000}", when) for number, when in enumerate(ahead)]
        ],
        "a clock back and forth by reports": [
            [tunnel(f"p{number}", at(3600 * (wave % 2))) for number in many] for wave in range(4)
        ],
        "expired ones": [
            [latency(f"p{number}", at(4000 * number)) for number in many],
        ],
        "one peer": [[tunnel("p", at(number), moved=number) for number in many]],
        "registered ones": [[latency(f"n{number}", at(0)) for number in many]],
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(floods()))
async def test_no_report_holds_the_event_loop(kind: str) -> None:
    reports = floods()[kind]
    stored = [
        StoredPoint(
            timestamp=START, received_at=START, group="latency", peer_id=f"q{n}",
            data=latency(f"q{n}", START).data,
        )
        for n in range(10_000)
    ]  # fmt: skip
    listed: Any = Listed("a", *(f"n{number}" for number in range(2000)))

    async def report_and_ask() -> None:
        store, clock = FilledStore(stored), SystemClock()
        live = LiveMesh()
        observed = ObservedStore(store, live, listed)  # type: ignore[arg-type]
        async with feeding(observed, live, clock):
            await store.was_recalled.wait()
            for points in reports:
                await observed.write(Report("a", points, clock.now()))
            now = live.now()
            for _ in live.building(now):
                await asyncio.sleep(0)
            snapshot = live.snapshot(now)
            for steps in (
                mesh(live, snapshot, now), fleet(live, snapshot, now),
                peers(live, "a", snapshot, now),
            ):  # fmt: skip
                for _ in steps:
                    await asyncio.sleep(0)
        assert live.waiting == 0

    assert await longest_callback(report_and_ask) < MOST_SECONDS


def test_a_large_mesh_is_listed_within_its_bounds() -> None:
    live = LiveMesh()
    live.update_roster(Roster.of(Node(f"n{number}", "", START) for number in range(50)))
    for number in range(50):
        links = [tunnel(f"n{other}", at(0)) for other in range(50) if other != number]
        strangers = [tunnel(f"x{number}-{other}", at(0), handshake_age=None) for other in range(20)]
        live.observe(Report(f"n{number}", strangers + links, at(0)), moment(0))
    snapshot = live.snapshot(moment(1))
    answer = finish(mesh(live, snapshot, moment(1), most_bytes=200_000))
    body = msgspec.json.encode(answer)
    found = msgspec.json.decode(body)

    assert len(body) <= 200_000
    assert all(link["b"].startswith("n") for link in found["links"])
    assert len(found["links"]) + found["left_out"] == 50 * 49 / 2 + 50 * 20
