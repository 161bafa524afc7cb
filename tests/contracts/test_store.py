"""What every `Store` promises, for every implementation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.api import BatchName, LatencyResult, MetricPoint, SystemStats, TunnelStats
from plexd_server.errors import StoreError
from plexd_server.store import DuckDBStore, Ledger, Receipt, Report, SeriesQuery, Store
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

    receipt = await store.write(report(*EXAMPLE, AGENT, at=arrived))

    assert receipt == Receipt(accepted=4)
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


async def test_each_peer_has_a_latest_point(store: Store) -> None:
    await store.write(report(*(latency(i, i, f"p{i % 3}") for i in range(9))))

    newest = await store.latest("n1")

    assert [(p.peer_id, p.data) for p in newest] == [
        ("p0", LatencyResult("p0", 6)),
        ("p1", LatencyResult("p1", 7)),
        ("p2", LatencyResult("p2", 8)),
    ]


async def test_nodes_do_not_see_each_others_points(store: Store) -> None:
    await store.write(report(SYSTEM, node_id="n2"))

    assert await store.latest("n1") == []
    assert (await store.series(query("load_avg_1"))).times == []


async def test_an_empty_report_changes_nothing(store: Store) -> None:
    assert await store.write(report()) == Receipt(accepted=0)
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


async def test_concurrent_reports_are_all_stored(store: Store) -> None:
    points = [latency(i, i, f"p{i:03d}") for i in range(200)]

    receipts = await asyncio.gather(*(store.write(report(point)) for point in points))

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

    assert {(await write).accepted for write in writes} == {1}


async def test_a_closed_store_refuses_with_a_store_error(make: Callable[[], Store]) -> None:
    store = make()
    await store.check()
    await store.aclose()

    for call in (store.check(), store.latest("n1"), store.write(report(SYSTEM))):
        with pytest.raises(StoreError):
            await call


def batch(
    seq: int, *seconds: float, offset: int = 0, of: int = 0, dropped: int = 0, epoch: str = EPOCH
) -> Report:
    """A piece of a sealed batch, with a latency point for each of ``seconds``."""
    points = [latency(at, seq) for at in seconds]
    name = BatchName(epoch, seq, offset, of or offset + len(points))
    return Report("n1", points, NOW + timedelta(hours=1), name=name, dropped=dropped)


def rejection(seq: int, points: int = 1, *, offset: int = 0, of: int = 0) -> Report:
    name = BatchName(EPOCH, seq, offset, of or offset + points)
    return Report("n1", (), NOW + timedelta(hours=1), name=name, rejected=points)


async def stored(store: Store) -> list[float | None]:
    """The sequence numbers of the stored latency points, by the points' seconds."""
    series = await store.series(query("rtt_nano", group="latency", peer_id="p", step=1))
    return series.avg["rtt_nano"]


async def count(store: Store) -> int:
    return (await store.ledger("n1")).received


async def test_a_named_batch_has_its_effect_once(store: Store) -> None:
    first = await store.write(batch(1, 0, 1))
    again = [await store.write(batch(1, 0, 1)) for _ in range(3)]

    assert first == Receipt(accepted=2)
    assert again == [Receipt(accepted=2, duplicate=True)] * 3
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.duplicates) == (2, 3)


async def test_one_batch_sent_side_by_side_has_its_effect_once(store: Store) -> None:
    receipts = await asyncio.gather(*(store.write(batch(1, 0, 1)) for _ in range(40)))

    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 39
    assert {receipt.accepted for receipt in receipts} == {2}
    assert await count(store) == 2


async def test_marks_are_of_one_node_and_one_epoch(store: Store) -> None:
    other = msgspec.structs.replace(batch(1, 0), node_id="n2")
    for piece in (batch(1, 0), batch(1, 1, epoch="f" * 32), other):
        assert not (await store.write(piece)).duplicate
        assert (await store.write(piece)).duplicate

    assert await count(store) == 2


async def test_marks_outlive_the_store(make: Callable[[], Store]) -> None:
    first = make()
    await first.write(batch(7, 0, 1, of=4))
    await first.aclose()

    second = make()
    try:
        assert (await second.write(batch(7, 0, 1, of=4))).duplicate
        assert not (await second.write(batch(7, 2, 3, offset=2))).duplicate
        assert await stored(second) == [7.0] * 4
    finally:
        await second.aclose()


async def test_of_a_piece_that_came_in_part_the_rest_is_stored(store: Store) -> None:
    await store.write(batch(1, 0, 1, of=6))
    await store.write(batch(1, 1, 2, 3, offset=1, of=6))
    receipt = await store.write(batch(1, 0, 1, 2, 3, 4, 5))

    assert receipt == Receipt(accepted=6)
    assert (await store.write(batch(1, 4, 5, offset=4))).duplicate
    assert await stored(store) == [1.0] * 6
    assert await count(store) == 6


async def test_a_batch_below_the_mark_is_a_duplicate_for_ever(store: Store) -> None:
    await store.write(batch(5, 0))

    assert (await store.write(batch(3, 1, 2))).duplicate
    assert await stored(store) == [5.0]


async def test_points_without_a_name_are_stored_as_often_as_they_come(store: Store) -> None:
    for _ in range(2):
        assert not (await store.write(report(latency(0, 1), latency(1, 1)))).duplicate

    assert await store.ledger("n1") == Ledger()


async def test_a_ledger_is_complete_up_to_the_last_whole_batch(store: Store) -> None:
    assert (await store.ledger("n1")).complete_until is None
    await store.write(batch(1, 3, 9, 5))
    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=9)
    await store.write(batch(2, 20, 10, of=3))
    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=9)
    await store.write(batch(2, 15, offset=2))

    assert (await store.ledger("n1")).complete_until == NOW + timedelta(seconds=20)


async def test_batches_that_never_came_are_a_gap_unless_the_node_reported_them(
    store: Store,
) -> None:
    await store.write(batch(1, 0, 9))
    await store.write(batch(4, 60, 50))
    await store.write(batch(6, 99, dropped=70))
    await store.write(batch(7, 100, dropped=5))

    ledger = await store.ledger("n1")

    assert (ledger.gap_batches, ledger.evicted, ledger.rejected) == (2, 75, 0)
    assert [(x.reason, x.points, x.batches) for x in ledger.losses] == [
        ("gap", 0, 2), ("evicted", 70, 1), ("evicted", 5, 0)
    ]  # fmt: skip
    assert (ledger.losses[0].since, ledger.losses[0].until) == (
        NOW + timedelta(seconds=9),
        NOW + timedelta(seconds=50),
    )


async def test_losses_reported_with_a_duplicate_are_not_counted_again(store: Store) -> None:
    for _ in range(3):
        await store.write(batch(1, 0, dropped=8))

    assert (await store.ledger("n1")).evicted == 8


async def test_what_was_rejected_here_is_neither_evicted_nor_a_gap(store: Store) -> None:
    await store.write(batch(1, 0))
    for _ in range(2):
        assert (await store.write(rejection(2, 100))).accepted == 0
    ledger_before = await store.ledger("n1")
    await store.write(rejection(3, 10))
    await store.write(batch(4, 50, dropped=115))
    ledger = await store.ledger("n1")

    assert (ledger_before.rejected, ledger_before.losses[0].points) == (100, 100)
    assert (ledger.rejected, ledger.evicted, ledger.gap_batches) == (110, 5, 0)
    assert [(x.reason, x.points, x.batches) for x in ledger.losses] == [
        ("rejected", 100, 1), ("rejected", 10, 1), ("evicted", 5, 0)
    ]  # fmt: skip


async def test_after_a_rejected_piece_the_other_pieces_are_still_accepted(store: Store) -> None:
    await store.write(batch(1, 0, 1, of=6))
    await store.write(rejection(1, 4, offset=2, of=6))  # unreadable, so it counts as the whole rest
    await store.write(batch(1, 4, 5, offset=4))
    await store.write(batch(2, 9, dropped=2))

    ledger = await store.ledger("n1")

    assert (ledger.received, ledger.rejected, ledger.evicted) == (5, 2, 0)
    assert ledger.complete_until == NOW + timedelta(seconds=9)


async def test_what_was_rejected_by_mistake_is_accepted_when_it_comes_again(store: Store) -> None:
    await store.write(rejection(1, 2))

    assert await store.write(batch(1, 0, 1)) == Receipt(accepted=2)
    assert (await store.ledger("n1")).rejected == 0


async def test_a_new_epoch_continues_the_same_ledger(store: Store) -> None:
    await store.write(batch(9, 0))
    await store.write(batch(2, 30, epoch="f" * 32))

    ledger = await store.ledger("n1")

    assert (ledger.received, ledger.gap_batches) == (2, 9)
    assert ledger.losses[-1].since == NOW
    assert ledger.complete_until == NOW + timedelta(seconds=30)


async def test_points_that_are_too_old_are_removed_and_the_ledger_still_counts_them(
    make: Callable[[], Store],
) -> None:
    store = make()
    week = 7 * 86_400
    for seq, seconds in enumerate((0, week), 1):
        await store.write(batch(seq, seconds, seconds + 60))
    now, keep = NOW + timedelta(seconds=week + 120), timedelta(days=1)

    assert await store.expire(now, keep) == 2
    assert await store.expire(now, keep) == 0

    for _ in range(2):
        series = await store.series(
            msgspec.structs.replace(query("rtt_nano", group="latency", peer_id="p"), until=now)
        )
        assert len(series.times) == 2
        assert (await store.ledger("n1")).received == 4
        assert (await store.write(batch(1, 0, 60))).duplicate
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
    writes = [store.write(batch(seq, 20 * 86_400 + seq)) for seq in range(1, 30)]

    assert not any(receipt.duplicate for receipt in await asyncio.gather(*writes))
    assert await expiring == 17 * 50
    assert (await store.ledger("n1")).received == 29
