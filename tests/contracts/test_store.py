"""What every `Store` promises, for every implementation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plexd.api import (
    BatchName,
    LatencyResult,
    MetricPoint,
    Predecessor,
    Receipt,
    SystemStats,
    TunnelStats,
    continuation,
)
from plexd_server.errors import StoreError
from plexd_server.store import DuckDBStore, Ledger, Report, SeriesQuery, Store, StoredPoint
from support.points import AGENT, EPOCH, EXAMPLE, LATENCY, NOW, SYSTEM, TUNNEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

IMPLEMENTATIONS: dict[str, Callable[[Path], Store]] = {"duckdb": DuckDBStore}


@pytest.fixture(params=IMPLEMENTATIONS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    return lambda: IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
async def store(make: Callable[[], Store]) -> AsyncIterator[Store]:
    made = make()
    yield made
    await made.aclose()


def report(*points: MetricPoint, node_id: str = "n1", at: datetime = NOW) -> Report:
    return Report(node_id, points, at)


def system(seconds: float = 0, **fields: float) -> MetricPoint:
    assert isinstance(SYSTEM.data, SystemStats)
    data = msgspec.structs.replace(SYSTEM.data, **fields)
    moment = NOW + timedelta(seconds=seconds)
    return MetricPoint(timestamp=moment, group="system", data=data)


def latency(seconds: float, rtt_nano: int, peer_id: str = "p") -> MetricPoint:
    moment = NOW + timedelta(seconds=seconds)
    data = LatencyResult(peer_id, rtt_nano)
    return MetricPoint(timestamp=moment, group="latency", peer_id=peer_id, data=data)


def query(*fields: str, rates: tuple[str, ...] = (), step: float = 15, **more: str) -> SeriesQuery:
    return SeriesQuery(
        node_id="n1",
        group=more.get("group", "system"),
        fields=fields,
        rates=frozenset(rates),
        since=NOW,
        until=NOW + timedelta(minutes=5),
        step=timedelta(seconds=step),
        peer_id=more.get("peer_id", ""),
    )


async def test_what_is_written_comes_back_as_it_was(store: Store) -> None:
    arrived = NOW + timedelta(seconds=3)

    written = await store.write(report(*EXAMPLE, AGENT, at=arrived))

    assert (written.receipt, len(written.points)) == (Receipt(accepted=4), 4)
    stored = await store.latest("n1")
    assert {(p.timestamp, p.group, p.peer_id, p.data) for p in stored} == {
        (p.timestamp, p.group, p.peer_id, p.data) for p in (SYSTEM, TUNNEL, LATENCY, AGENT)
    }
    assert {p.received_at for p in stored} == {arrived}


async def test_extremes_of_the_wire_types_survive(store: Store) -> None:
    zero_time = datetime(1, 1, 1, tzinfo=UTC)
    tunnel = TunnelStats(
        peer_id="p" * 256,
        last_handshake_time=zero_time,
        rx_bytes=2**64 - 1,
        tx_bytes=0,
        handshake_succeeded=False,
        handshake_stale=True,
        packet_loss_percent=-1,
    )
    far = MetricPoint(
        timestamp=datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        group="tunnel",
        peer_id=tunnel.peer_id,
        data=tunnel,
    )

    machine = system(load_avg_1=1.7e308)

    await store.write(report(far, latency(0, 2**63 - 1), machine))

    newest = {point.group: point for point in await store.latest("n1")}
    assert (newest["tunnel"].timestamp, newest["tunnel"].data) == (far.timestamp, tunnel)
    assert newest["latency"].data == LatencyResult("p", 2**63 - 1)
    assert newest["system"].data == machine.data


async def test_the_latest_point_is_the_newest_by_its_own_time_not_by_arrival(store: Store) -> None:
    await store.write(report(system(60, load_avg_1=6)))
    await store.write(report(system(0, load_avg_1=1), at=NOW + timedelta(hours=1)))

    (newest,) = await store.latest("n1")

    assert newest.timestamp == NOW + timedelta(seconds=60)


HOUR = 3600.0


class Clocks:
    """A node that reports a minute apart; its clock and the server's may be ahead of the time."""

    def __init__(self, store: Store, *, is_named: bool) -> None:
        self.store = store
        self.is_named = is_named
        self.sent = 0

    async def report(
        self, seconds: float, load: float, *, node_ahead: float = 0, server_ahead: float = 0
    ) -> None:
        points = [
            system(seconds + node_ahead, load_avg_1=load),
            latency(seconds + node_ahead, int(load)),
        ]
        name = BatchName(EPOCH, self.sent + 1, 2) if self.is_named else None
        self.sent += 2
        arrived = NOW + timedelta(seconds=seconds + server_ahead + 1)
        await self.store.write(Report("n1", points, arrived, name, Predecessor()))


async def shown(store: Store) -> tuple[set[float], float]:
    """The loads of the newest points, and the seconds at which the node last reported."""
    (summary,) = await store.fleet()
    assert summary.received_at is not None
    assert summary.system is not None
    loads = [summary.system, *await store.latest("n1")]
    seconds = (summary.received_at - NOW).total_seconds()
    return {value_of(point) for point in loads}, seconds


def value_of(point: StoredPoint) -> float:
    if isinstance(point.data, SystemStats):
        return point.data.load_avg_1
    assert isinstance(point.data, LatencyResult)
    return point.data.rtt_nano


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("ahead", [10, 600, 6 * HOUR, 23 * HOUR])
async def test_a_node_whose_clock_was_set_right_shows_what_came_last(
    make: Callable[[], Store], ahead: float, *, is_named: bool
) -> None:
    store = make()
    node = Clocks(store, is_named=is_named)
    await node.report(-60, 1)
    await node.report(0, 2, node_ahead=ahead)
    assert await shown(store) == ({2}, 1)
    for minute in (0.05, 1, 20, 600):
        await node.report(60 * minute, 3 + minute)
        assert await shown(store) == ({3 + minute, int(3 + minute)}, 60 * minute + 1)
    await store.aclose()

    again = make()
    assert await shown(again) == ({603}, 36_001)
    await again.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("node_ahead", [0, HOUR], ids=["server alone", "both on one machine"])
async def test_a_server_whose_clock_was_set_right_shows_what_came_last(
    make: Callable[[], Store], node_ahead: float, *, is_named: bool
) -> None:
    store = make()
    node = Clocks(store, is_named=is_named)
    for minute in range(4):
        await node.report(60 * minute, 1 + minute, node_ahead=node_ahead, server_ahead=HOUR)
    for minute in range(4, 8):
        await node.report(60 * minute, 1 + minute)
        assert await shown(store) == ({1 + minute}, 60 * minute + 1)
    await store.aclose()

    again = make()
    assert await shown(again) == ({8}, 421)
    await again.aclose()


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_node_that_is_always_ahead_or_behind_shows_what_came_last(
    store: Store, *, is_named: bool
) -> None:
    for ahead in (6 * HOUR, -6 * HOUR):
        node = Clocks(store, is_named=is_named)
        node.sent = 0 if ahead > 0 else 20
        for minute in range(10):
            await node.report(60 * minute + HOUR * (ahead < 0), 1 + minute, node_ahead=ahead)
        assert (await shown(store))[0] == {10}


async def test_a_backlog_after_a_wrong_clock_shows_its_end(store: Store) -> None:
    node = Clocks(store, is_named=True)
    await node.report(0, 1, node_ahead=6 * HOUR)
    await node.report(60, 2)
    for minute in range(2, 30):  # kept on the node for eight hours
        point = system(60 * minute, load_avg_1=minute + 1)
        name, arrived = BatchName(EPOCH, node.sent + 1, 1), NOW + timedelta(hours=8, minutes=minute)
        node.sent += 1
        await store.write(Report("n1", [point], arrived, name, Predecessor()))

        (summary,) = await store.fleet()
        assert summary.system is not None
        assert value_of(summary.system) == minute + 1


async def test_of_one_stamp_the_last_to_arrive_is_the_latest(store: Store) -> None:
    await store.write(report(system(0, load_avg_1=1), at=NOW + timedelta(seconds=9)))
    await store.write(report(system(0, load_avg_1=2), at=NOW))

    assert (await shown(store))[0] == {2}


async def test_each_peer_has_a_latest_point(store: Store) -> None:
    await store.write(report(*(latency(i, i, f"p{i % 3}") for i in range(9))))

    newest = await store.latest("n1")

    assert [(p.peer_id, p.data) for p in newest] == [
        ("p0", LatencyResult("p0", 6)),
        ("p1", LatencyResult("p1", 7)),
        ("p2", LatencyResult("p2", 8)),
    ]


@pytest.mark.slow
async def test_the_latest_points_are_those_of_a_bounded_number_of_peers(store: Store) -> None:
    peers = [f"p{number:05}" for number in range(12_000)]
    await store.write(report(*(latency(0, 1, peer) for peer in peers[:7_000])))
    await store.write(report(*(latency(1, 1, peer) for peer in peers[7_000:])))

    found = [point.peer_id for point in await store.latest("n1")]

    assert found == [*peers[:5_000], *peers[7_000:]]


async def test_nodes_do_not_see_each_others_points(store: Store) -> None:
    await store.write(report(SYSTEM, node_id="n2"))

    assert await store.latest("n1") == []
    assert (await store.series(query("load_avg_1"))).times == []


async def test_an_empty_report_changes_nothing(store: Store) -> None:
    assert await send(store, report()) == Receipt(accepted=0)
    assert await store.fleet() == []


async def test_a_series_folds_readings_into_buckets_and_leaves_empty_ones_out(store: Store) -> None:
    loads = {0: 1.0, 5: 3.0, 200: 7.0}
    await store.write(report(*(system(at, load_avg_1=load) for at, load in loads.items())))

    series = await store.series(query("load_avg_1"))

    assert series.times == [NOW, NOW + timedelta(seconds=195)]
    assert series.avg == {"load_avg_1": [2.0, 7.0]}
    assert series.min == {"load_avg_1": [1.0, 7.0]}
    assert series.max == {"load_avg_1": [3.0, 7.0]}


async def test_a_series_holds_its_range_only(store: Store) -> None:
    await store.write(report(system(-1), system(0), system(299), system(300)))

    series = await store.series(query("load_avg_1", step=1))

    assert series.times == [NOW, NOW + timedelta(seconds=299)]


async def test_a_counter_is_read_as_change_per_second_and_a_reset_as_nothing(store: Store) -> None:
    counts = [2**64 - 301, 2**64 - 1, 100, 250]
    points = [system(15 * i, network_rx_bytes=count) for i, count in enumerate(counts)]
    await store.write(report(*points))

    series = await store.series(query("network_rx_bytes", rates=("network_rx_bytes",)))

    assert series.avg["network_rx_bytes"] == [None, 20.0, None, 10.0]


async def test_points_of_the_same_instant_make_no_infinite_rate(store: Store) -> None:
    await store.write(report(system(0, network_rx_bytes=1), system(0, network_rx_bytes=5)))

    series = await store.series(query("network_rx_bytes", rates=("network_rx_bytes",)))

    assert series.avg["network_rx_bytes"] == [None]


async def test_a_ping_without_an_answer_is_no_round_trip_of_minus_one(store: Store) -> None:
    await store.write(report(latency(0, 10), latency(5, -1), latency(20, -1), latency(0, 99, "q")))

    series = await store.series(query("rtt_nano", group="latency", peer_id="p"))

    assert series.avg["rtt_nano"] == [10.0, None]


async def test_the_fleet_is_every_node_that_reported(store: Store) -> None:
    later = NOW + timedelta(seconds=9)
    await store.write(report(system(0, load_avg_1=1), system(9, load_avg_1=2)))
    await store.write(report(LATENCY, node_id="n2", at=later))

    one, two = await store.fleet()

    assert (one.node_id, one.received_at) == ("n1", NOW)
    assert one.system is not None
    assert one.system.timestamp == later
    assert (two.node_id, two.received_at, two.system) == ("n2", later, None)


async def test_a_node_of_which_nothing_was_stored_has_no_time_of_its_last_report(
    store: Store,
) -> None:
    await store.write(Report("n1", [system(90_000)], NOW, ahead=(0,)))

    (one,) = await store.fleet()

    assert (one.node_id, one.received_at, one.system) == ("n1", None, None)


async def test_concurrent_reports_are_all_stored(store: Store) -> None:
    points = [latency(i, i, f"p{i:03d}") for i in range(200)]

    receipts = await asyncio.gather(*(send(store, report(point)) for point in points))

    assert {receipt.accepted for receipt in receipts} == {1}
    assert len(await store.latest("n1")) == 200


async def test_what_was_acknowledged_is_there_after_opening_again(
    make: Callable[[], Store],
) -> None:
    first = make()
    await first.write(report(*EXAMPLE))
    await first.aclose()

    second = make()
    try:
        assert len(await second.latest("n1")) == 3
    finally:
        await second.aclose()


async def test_closing_finishes_accepted_writes_and_may_be_repeated(
    make: Callable[[], Store],
) -> None:
    store = make()
    writes = [asyncio.create_task(store.write(report(latency(i, i)))) for i in range(20)]
    await asyncio.sleep(0)

    await store.aclose()
    await store.aclose()

    assert {(await write).receipt.accepted for write in writes} == {1}


async def test_a_closed_store_refuses_with_a_store_error(make: Callable[[], Store]) -> None:
    store = make()
    await store.check()
    await store.aclose()

    for call in (store.check(), store.latest("n1"), store.write(report(SYSTEM))):
        with pytest.raises(StoreError):
            await call


OTHER = "f" * 32
LATER = NOW + timedelta(hours=1)


def batch(first: int, *seconds: float, epoch: str = EPOCH, **more: Any) -> Report:
    """A batch from the place ``first`` on, with a latency point for each of ``seconds``."""
    points = [latency(at, first + index) for index, at in enumerate(seconds)]
    name = BatchName(epoch, first, len(points))
    return Report("n1", points, LATER, name, **({"after": Predecessor()} | more))


def after(place: int, epoch: str = EPOCH, skipped: int = 0) -> Predecessor:
    return Predecessor(epoch, place, skipped)


def rejection(first: int, points: int = 1, *, epoch: str = EPOCH, **more: Any) -> Report:
    name = BatchName(epoch, first, points)
    return Report("n1", (), LATER, name, Predecessor(), is_rejected=True, **more)


async def send(store: Store, report: Report) -> Receipt:
    return (await store.write(report)).receipt


async def stored(store: Store) -> list[float | None]:
    """The places of the stored latency points, by the points' seconds."""
    series = await store.series(query("rtt_nano", group="latency", peer_id="p", step=1))
    return series.avg["rtt_nano"]


async def count(store: Store) -> int:
    return (await store.ledger("n1")).received


async def losses(store: Store) -> list[tuple[str, int, str]]:
    return [(x.reason, x.points, x.detail) for x in (await store.ledger("n1")).losses]


async def test_a_named_batch_has_its_effect_once(store: Store) -> None:
    first = await store.write(batch(1, 0, 1))
    again = [await store.write(batch(1, 0, 1)) for _ in range(3)]

    assert (first.receipt, len(first.points)) == (Receipt(accepted=2), 2)
    assert {each.receipt for each in again} == {Receipt(accepted=2, duplicate=True)}
    assert not any(each.points for each in again)
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.duplicates) == (2, 3)


async def test_one_batch_sent_side_by_side_has_its_effect_once(store: Store) -> None:
    receipts = await asyncio.gather(*(send(store, batch(1, 0, 1)) for _ in range(40)))

    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 39
    assert {receipt.accepted for receipt in receipts} == {2}
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.duplicates) == (2, 39)


async def test_marks_are_of_one_node_and_one_epoch(store: Store) -> None:
    other = msgspec.structs.replace(batch(1, 0), node_id="n2")
    for piece in (batch(1, 0), batch(1, 1, epoch=OTHER, after=after(1)), other):
        assert not (await send(store, piece)).duplicate
        assert (await send(store, piece)).duplicate

    assert await count(store) == 2


async def test_marks_outlive_the_store(make: Callable[[], Store]) -> None:
    first = make()
    await first.write(batch(1, 0, 1))
    await first.aclose()

    second = make()
    try:
        assert (await send(second, batch(1, 0, 1))).duplicate
        assert not (await send(second, batch(3, 2, 3))).duplicate
        assert (await send(second, batch(3, 9, 9))).clash
        assert await stored(second) == [1.0, 2.0, 3.0, 4.0]
    finally:
        await second.aclose()


async def test_of_a_batch_that_came_in_part_the_rest_is_stored(store: Store) -> None:
    await store.write(batch(1, 0, 1))
    await store.write(batch(2, 1, 2, 3))
    written = await store.write(batch(1, 0, 1, 2, 3, 4, 5))

    assert written.receipt == Receipt(accepted=6)
    assert [point.data for point in written.points] == [
        LatencyResult("p", place) for place in (5, 6)
    ]
    assert (await send(store, batch(5, 4, 5))).duplicate
    assert await stored(store) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert await count(store) == 6


async def test_a_place_below_the_mark_is_a_duplicate_for_ever(store: Store) -> None:
    await store.write(batch(5, 5))

    assert (await send(store, batch(3, 1, 2))).duplicate
    assert await stored(store) == [5.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        batch(2, 6, 7),  # a point that came before is newer than all that came
        batch(2, 1, 3, 4),  # the point at the mark has another stamp
        batch(3, 3),
        batch(1, 0, 1, 9),
    ],
)
async def test_other_points_under_the_same_names_are_a_clash_and_change_nothing(
    store: Store, other: Report
) -> None:
    await store.write(batch(1, 0, 1, 5))
    before = await store.ledger("n1")

    written = await store.write(other)

    newest = NOW + timedelta(seconds=5)
    assert written.receipt == Receipt(0, clash=True, upto=3, newest=newest)
    assert not written.points
    assert await store.ledger("n1") == before
    assert not (await send(store, batch(4, 6))).clash


async def test_points_without_a_name_are_stored_as_often_as_they_come(store: Store) -> None:
    for _ in range(2):
        assert not (await send(store, report(latency(0, 1), latency(1, 1)))).duplicate

    assert await store.ledger("n1") == Ledger()


async def test_a_ledger_is_complete_up_to_the_last_point_that_came(store: Store) -> None:
    assert (await store.ledger("n1")).complete_until is None
    await store.write(batch(1, 3, 5, 9))
    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=9)
    await store.write(batch(4, -60))  # the node's clock was put back

    assert (await store.ledger("n1")).complete_until == NOW - timedelta(seconds=60)


async def test_places_that_never_came_are_a_gap_unless_the_node_reported_them(
    store: Store,
) -> None:
    await store.write(batch(1, 0, 9))
    await store.write(batch(5, 60, 50))
    await store.write(batch(77, 99, dropped=70))
    await store.write(batch(78, 100, dropped=77))  # of these five no place tells

    ledger = await store.ledger("n1")

    assert (ledger.gap, ledger.evicted, ledger.rejected) == (2, 75, 0)
    assert await losses(store) == [("gap", 2, ""), ("evicted", 70, ""), ("evicted", 5, "")]
    assert (ledger.losses[0].since, ledger.losses[0].until) == (
        NOW + timedelta(seconds=9),
        NOW + timedelta(seconds=50),
    )


async def test_a_loss_that_two_witnesses_report_is_one_loss(store: Store) -> None:
    await store.write(batch(11, 0, dropped=8))
    await store.write(batch(15, 1, dropped=8))
    await store.write(batch(16, 2, dropped=13))

    ledger = await store.ledger("n1")

    assert (ledger.evicted, ledger.gap) == (8, 5)


async def test_losses_reported_with_a_duplicate_are_not_counted_again(store: Store) -> None:
    for _ in range(3):
        await store.write(batch(1, 0, dropped=8))

    assert (await store.ledger("n1")).evicted == 8


@pytest.mark.parametrize("dropped", [0, 110])
async def test_what_was_rejected_here_is_neither_evicted_nor_a_gap(
    store: Store, dropped: int
) -> None:
    """Whether the node counts what was rejected here as dropped makes no difference."""
    await store.write(batch(1, 0))
    for _ in range(2):
        assert (await send(store, rejection(2, 100))).accepted == 0
    await store.write(rejection(102, 10))
    await store.write(batch(117, 50, dropped=dropped and dropped + 5))
    ledger = await store.ledger("n1")

    assert (ledger.rejected, ledger.evicted + ledger.gap) == (110, 5)
    why = "evicted" if dropped else "gap"
    assert await losses(store) == [("rejected", 100, ""), ("rejected", 10, ""), (why, 5, "")]


async def test_what_was_rejected_and_comes_again_is_a_duplicate(store: Store) -> None:
    await store.write(batch(1, 0))
    await store.write(rejection(2, 2))

    assert (await send(store, batch(2, 1, 2))).duplicate
    assert not (await send(store, batch(3, 2, 3))).duplicate
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.rejected, ledger.gap) == (2, 2, 0)


async def test_points_ahead_of_the_clock_are_rejected_one_by_one(store: Store) -> None:
    two_days = 2 * 86_400
    written = await store.write(batch(1, 0, two_days, 2, ahead=(1,)))
    again = await send(store, batch(1, 0, two_days, 2, ahead=(1,)))

    assert (written.receipt.accepted, written.receipt.rejected) == (2, 1)
    assert "1 point more than 24 h ahead of the server's clock: up to 2026-02-14T10:30:00Z" in (
        written.receipt.reason
    )
    assert (again.accepted, again.duplicate, again.rejected) == (2, True, 1)
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.ahead, ledger.rejected) == (2, 1, 0)
    assert await losses(store) == [("ahead", 1, "")]
    assert ledger.complete_until == NOW + timedelta(seconds=2)
    assert await stored(store) == [1.0, 3.0]


async def test_of_points_without_a_name_those_ahead_are_counted_as_well(store: Store) -> None:
    ahead = Report("n1", [latency(0, 1), latency(9e5, 2)], NOW, ahead=(1,))

    assert (await send(store, ahead)).rejected == 1
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.ahead) == (0, 1)


async def test_unknown_keys_are_counted_once_with_a_name_or_without(store: Store) -> None:
    named = msgspec.structs.replace(batch(1, 0, 1), unknown_keys=3)
    for report in (named, named, batch(3, 2), Report("n1", [latency(9, 9)], NOW, unknown_keys=4)):
        await store.write(report)
    await store.write(Report("n2", [latency(0, 1)], NOW))

    assert (await store.ledger("n1")).unknown_keys == 7
    assert (await store.ledger("n2")).unknown_keys == 0


async def test_a_new_epoch_continues_the_same_ledger(store: Store) -> None:
    await store.write(batch(1, 0))
    await store.write(batch(3, 30, epoch=OTHER, after=after(5, skipped=7)))

    ledger = await store.ledger("n1")

    # four after the first one, seven of other epochs, and two before this one
    assert (ledger.received, ledger.gap) == (2, 13)
    assert ledger.losses[-1].since == NOW
    assert ledger.complete_until == NOW + timedelta(seconds=30)


async def test_a_predecessor_that_is_not_known_is_a_loss_without_a_beginning(store: Store) -> None:
    await store.write(batch(2, 30, epoch=OTHER, after=after(20)))

    (loss,) = (await store.ledger("n1")).losses
    assert (loss.reason, loss.points, loss.detail) == ("gap", 21, "predecessor unknown")
    assert loss.since is None


async def test_two_successors_of_one_epoch_count_its_loss_once(store: Store) -> None:
    await store.write(batch(1, 0))
    for number in (1, 2):
        await store.write(batch(1, 10 * number, epoch=f"{number}" * 32, after=after(5)))

    assert (await store.ledger("n1")).gap == 4
    assert not (await send(store, batch(4, 3))).duplicate  # the other machine still had it
    assert (await store.ledger("n1")).gap == 4


async def test_a_spool_that_begins_anew_is_a_loss_of_unknown_size(store: Store) -> None:
    await store.write(batch(1, 0))
    await store.write(batch(1, 30, epoch=OTHER))
    await store.write(batch(1, 60, epoch="1" * 32, after=Predecessor(skipped=3)))

    assert await losses(store) == [("gap", 0, "spool begun anew"), ("gap", 3, "spool begun anew")]
    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=60)


async def test_a_mark_beyond_the_place_where_it_was_left_is_noted(store: Store) -> None:
    await store.write(batch(1, 0, 1, 2))
    await store.write(batch(1, 30, epoch=OTHER, after=after(1)))

    assert await losses(store) == [("put_back", 2, "")]
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.gap, ledger.evicted) == (4, 0, 0)


async def test_a_continued_epoch_begins_where_its_predecessor_was_left(store: Store) -> None:
    await store.write(batch(1, 0, 1, 2, 3, 4))
    more = continuation(EPOCH, NOW + timedelta(seconds=4))
    await store.write(batch(6, 30, epoch=more, after=after(2, skipped=3)))

    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.gap) == (6, 3)


async def test_a_node_that_was_copied_is_as_complete_as_its_slower_branch(store: Store) -> None:
    ones, twos = "1" * 32, "2" * 32
    await store.write(batch(1, 0))
    await store.write(batch(1, 10, epoch=ones, after=after(1), address="192.0.2.1"))
    await store.write(batch(1, 90, epoch=twos, after=after(1), address="192.0.2.2"))
    ledger = await store.ledger("n1")

    assert ledger.complete_until == NOW + timedelta(seconds=10)
    assert [branch.epoch for branch in ledger.branches] == [ones, twos]
    assert not ledger.machines
    for place in (2, 3):
        await store.write(batch(place, 100 + place, epoch=ones, address="192.0.2.1"))
        await store.write(batch(place, 200 + place, epoch=twos, address="192.0.2.2"))
    ledger = await store.ledger("n1")
    assert ledger.complete_until == NOW + timedelta(seconds=103)
    assert ledger.machines == ("192.0.2.1", "192.0.2.2")


async def test_an_epoch_that_moves_after_its_successor_began_is_open_again(store: Store) -> None:
    await store.write(batch(1, 0))
    await store.write(batch(1, 90, epoch=OTHER, after=after(1)))
    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=90)

    await store.write(batch(2, 5))  # from a copy of the node

    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=5)


async def test_a_node_that_was_put_back_is_one_machine(store: Store) -> None:
    await store.write(batch(1, 0))
    for number in range(1, 5):
        epoch = f"{number}" * 32
        await store.write(batch(1, 10 * number, epoch=epoch, after=after(1)))
        await store.write(batch(2, 10 * number + 1, epoch=epoch))

    assert not (await store.ledger("n1")).machines


async def test_a_branch_that_was_silent_for_longer_than_a_spool_keeps_points_is_over(
    store: Store,
) -> None:
    await store.write(batch(1, 0))
    await store.write(batch(1, 10, epoch="1" * 32, after=after(1)))
    late = msgspec.structs.replace(
        batch(1, 90, epoch="2" * 32, after=after(1)), received_at=LATER + timedelta(days=91)
    )
    await store.write(late)

    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=90)


async def test_points_that_are_too_old_are_removed_and_the_ledger_still_counts_them(
    make: Callable[[], Store],
) -> None:
    store = make()
    week = 7 * 86_400
    for first, seconds in ((1, 0), (3, week)):
        await store.write(batch(first, seconds, seconds + 60))
    now, keep = NOW + timedelta(seconds=week + 120), timedelta(days=1)

    assert await store.expire(now, keep) == 2
    assert await store.expire(now, keep) == 0

    for _ in range(2):
        series = await store.series(
            msgspec.structs.replace(query("rtt_nano", group="latency", peer_id="p"), until=now)
        )
        in_five_minutes, *kept = series.times
        assert in_five_minutes == NOW
        assert kept == [NOW + timedelta(seconds=week), NOW + timedelta(seconds=week + 60)]
        assert (await store.ledger("n1")).received == 4
        assert (await send(store, batch(1, 0, 60))).duplicate
        await store.aclose()
        store = make()
    await store.aclose()


async def test_a_wrong_clock_of_the_server_alone_removes_nothing(store: Store) -> None:
    await store.write(report(system(0), system(60)))

    assert await store.expire(NOW + timedelta(days=30_000), timedelta(days=1)) == 0
    assert await store.expire(NOW - timedelta(days=30_000), timedelta(days=1)) == 0
    assert len(await store.latest("n1")) == 1


async def test_what_was_measured_at_the_beginning_of_time_is_kept_and_found(store: Store) -> None:
    first = msgspec.structs.replace(SYSTEM, timestamp=datetime(1, 1, 1, tzinfo=UTC))
    await store.write(report(first))

    assert await store.expire(NOW, timedelta(days=365)) == 0
    assert len(await store.latest("n1")) == 1


async def test_a_bucket_that_begins_before_the_first_year_begins_with_it(store: Store) -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    at = [first + timedelta(seconds=seconds) for seconds in (10, 20)]
    await store.write(report(*(msgspec.structs.replace(SYSTEM, timestamp=each) for each in at)))
    asked = query("load_avg_1", "network_rx_bytes", rates=("network_rx_bytes",), step=9_999_999)

    found = await store.series(
        msgspec.structs.replace(asked, since=first, until=first + timedelta(days=1))
    )

    assert found.times == [first]
    assert found.avg["network_rx_bytes"] == [0.0]


async def test_peers_and_groups_that_are_gone_are_not_the_latest_any_more(store: Store) -> None:
    day = 86_400
    old = [latency(0, 1, "gone"), latency(day, 2, "gone for a while"), system(0)]
    at = NOW + timedelta(seconds=day + 901)
    await store.write(report(*old, latency(day + 901, 3, "p"), at=at))
    await store.write(report(latency(0, 4), node_id="n2"))

    assert [point.peer_id for point in await store.latest("n1")] == ["p"]
    assert len(await store.latest("n2")) == 1


async def test_nothing_expires_in_an_empty_store(store: Store) -> None:
    assert await store.expire(NOW, timedelta(days=1)) == 0


async def test_reports_are_accepted_while_points_expire(store: Store) -> None:
    for day in range(20):
        await store.write(report(*(system(day * 86_400 + n) for n in range(50))))
    await store.write(report(system(21 * 86_400)))
    now = NOW + timedelta(days=20)

    expiring = asyncio.create_task(store.expire(now, timedelta(days=3)))
    writes = [send(store, batch(place, 20 * 86_400 + place)) for place in range(1, 30)]

    assert not any(receipt.duplicate for receipt in await asyncio.gather(*writes))
    assert await expiring == 17 * 50
    assert (await store.ledger("n1")).received == 29


@pytest.mark.slow
async def test_many_large_points_of_unknown_groups_cost_little_to_look_up(make: Any) -> None:
    """A node that sends them must not use up the memory with which others are answered."""
    text = b'{"x":"' + b"y" * 15_000 + b'"}'
    store = make()
    for second in range(30):
        at = NOW + timedelta(seconds=second)
        points = [
            MetricPoint(timestamp=at, group="path", peer_id=f"p{number:03}", data=msgspec.Raw(text))
            for number in range(500)
        ]
        await store.write(Report("n1", points, at))

    found = await store.latest("n1")
    for _ in range(10):  # a slow machine needs more than one question's patience to load them
        found = found or await store.latest("n1")

    assert [point.peer_id for point in found] == [f"p{number:03}" for number in range(500)]
    assert {point.timestamp for point in found} == {NOW + timedelta(seconds=29)}
    await store.aclose()


async def test_points_of_unknown_groups_are_stored_and_listed_and_expire(store: Store) -> None:
    def other(seconds: int, group: str, peer_id: str, data: bytes) -> MetricPoint:
        stamp = NOW + timedelta(seconds=seconds)
        return MetricPoint(timestamp=stamp, group=group, peer_id=peer_id, data=msgspec.Raw(data))

    points = [
        other(0, "path", "p", b'{"hops":1}'),
        other(1, "path", "p", b'{"hops":2}'),
        other(1, "path", "q", b"{}"),
        other(2, "zone", "", b'{"text":"\xc3\xbc"}'),
    ]
    await store.write(Report("n1", points, NOW))
    found = [
        (point.group, point.peer_id, bytes(point.data))
        for point in await store.latest("n1")
        if isinstance(point.data, msgspec.Raw)
    ]
    assert found == [
        ("path", "p", b'{"hops":2}'),
        ("path", "q", b"{}"),
        ("zone", "", b'{"text":"\xc3\xbc"}'),
    ]
    await store.write(Report("n1", [other(900_000, "path", "", b"{}")], NOW))
    await store.expire(NOW + timedelta(days=30), timedelta(days=1))
    assert len(await store.latest("n1")) == 1
