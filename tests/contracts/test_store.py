"""What every `Store` promises, whichever engine is behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.api import LatencyResult, MetricPoint, SystemStats, TunnelStats
from plexd_server.errors import StoreError
from plexd_server.store import Delivery, DuckDBStore, Receipt, SeriesQuery, Store
from support.points import AGENT, EXAMPLE, LATENCY, NOW, SYSTEM, TUNNEL

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


def delivery(*points: MetricPoint, node_id: str = "n1", at: datetime = NOW) -> Delivery:
    return Delivery(node_id, points, at)


def system(seconds: float = 0, **fields: float) -> MetricPoint:
    assert isinstance(SYSTEM.data, SystemStats)
    data = msgspec.structs.replace(SYSTEM.data, **fields)
    moment = NOW + timedelta(seconds=seconds)
    return MetricPoint(timestamp=moment, group="system", data=data)


def latency(seconds: float, rtt_nano: int, peer_id: str = "p") -> MetricPoint:
    moment = NOW + timedelta(seconds=seconds)
    data = LatencyResult(peer_id, rtt_nano)
    return MetricPoint(timestamp=moment, group="latency", peer_id=peer_id, data=data)


def asked(*fields: str, rates: tuple[str, ...] = (), step: float = 15, **more: str) -> SeriesQuery:
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

    receipt = await store.write(delivery(*EXAMPLE, AGENT, at=arrived))

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

    await store.write(delivery(far, latency(0, 2**63 - 1), system(load_avg_1=1.7e308)))

    newest = {point.group: point for point in await store.latest("n1")}
    assert (newest["tunnel"].timestamp, newest["tunnel"].data) == (far.timestamp, tunnel)
    assert newest["latency"].data == LatencyResult("p", 2**63 - 1)


async def test_the_latest_point_is_the_newest_by_its_own_time_not_by_arrival(store: Store) -> None:
    await store.write(delivery(system(60, load_avg_1=6)))
    await store.write(delivery(system(0, load_avg_1=1), at=NOW + timedelta(hours=1)))

    (newest,) = await store.latest("n1")

    assert newest.timestamp == NOW + timedelta(seconds=60)


async def test_each_peer_has_a_latest_point(store: Store) -> None:
    await store.write(delivery(*(latency(i, i, f"p{i % 3}") for i in range(9))))

    newest = await store.latest("n1")

    assert [(p.peer_id, p.data) for p in newest] == [
        ("p0", LatencyResult("p0", 6)),
        ("p1", LatencyResult("p1", 7)),
        ("p2", LatencyResult("p2", 8)),
    ]


async def test_nodes_do_not_see_each_others_points(store: Store) -> None:
    await store.write(delivery(SYSTEM, node_id="n2"))

    assert await store.latest("n1") == []
    assert (await store.series(asked("load_avg_1"))).times == []


async def test_an_empty_delivery_changes_nothing(store: Store) -> None:
    assert await store.write(delivery()) == Receipt(accepted=0)
    assert await store.fleet() == []


async def test_a_series_folds_readings_into_buckets_and_leaves_empty_ones_out(store: Store) -> None:
    loads = {0: 1.0, 5: 3.0, 200: 7.0}
    await store.write(delivery(*(system(at, load_avg_1=load) for at, load in loads.items())))

    series = await store.series(asked("load_avg_1"))

    assert series.times == [NOW, NOW + timedelta(seconds=195)]
    assert series.avg == {"load_avg_1": [2.0, 7.0]}
    assert series.min == {"load_avg_1": [1.0, 7.0]}
    assert series.max == {"load_avg_1": [3.0, 7.0]}


async def test_a_series_holds_its_range_only(store: Store) -> None:
    await store.write(delivery(system(-1), system(0), system(299), system(300)))

    series = await store.series(asked("load_avg_1", step=1))

    assert series.times == [NOW, NOW + timedelta(seconds=299)]


async def test_a_counter_is_read_as_change_per_second_and_a_reset_as_nothing(store: Store) -> None:
    counts = [2**64 - 301, 2**64 - 1, 100, 250]
    points = [system(15 * i, network_rx_bytes=count) for i, count in enumerate(counts)]
    await store.write(delivery(*points))

    series = await store.series(asked("network_rx_bytes", rates=("network_rx_bytes",)))

    assert series.avg["network_rx_bytes"] == [None, 20.0, None, 10.0]


async def test_points_of_the_same_instant_make_no_infinite_rate(store: Store) -> None:
    await store.write(delivery(system(0, network_rx_bytes=1), system(0, network_rx_bytes=5)))

    series = await store.series(asked("network_rx_bytes", rates=("network_rx_bytes",)))

    assert series.avg["network_rx_bytes"] == [None]


async def test_a_ping_without_an_answer_is_no_round_trip_of_minus_one(store: Store) -> None:
    await store.write(
        delivery(latency(0, 10), latency(5, -1), latency(20, -1), latency(0, 99, "q"))
    )

    series = await store.series(asked("rtt_nano", group="latency", peer_id="p"))

    assert series.avg["rtt_nano"] == [10.0, None]


async def test_the_fleet_is_every_node_that_reported(store: Store) -> None:
    later = NOW + timedelta(seconds=9)
    await store.write(delivery(system(0, load_avg_1=1), system(9, load_avg_1=2)))
    await store.write(delivery(LATENCY, node_id="n2", at=later))

    one, two = await store.fleet()

    assert (one.node_id, one.received_at) == ("n1", NOW)
    assert one.system is not None
    assert one.system.timestamp == later
    assert (two.node_id, two.received_at, two.system) == ("n2", later, None)


async def test_concurrent_deliveries_are_all_stored(store: Store) -> None:
    points = [latency(i, i, f"p{i:03d}") for i in range(200)]

    receipts = await asyncio.gather(*(store.write(delivery(point)) for point in points))

    assert {receipt.accepted for receipt in receipts} == {1}
    assert len(await store.latest("n1")) == 200


async def test_what_was_acknowledged_is_there_after_opening_again(
    make: Callable[[], Store],
) -> None:
    first = make()
    await first.write(delivery(*EXAMPLE))
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
    writes = [asyncio.create_task(store.write(delivery(latency(i, i)))) for i in range(20)]
    await asyncio.sleep(0)

    await store.aclose()
    await store.aclose()

    assert {(await write).accepted for write in writes} == {1}


async def test_a_closed_store_refuses_with_a_store_error(make: Callable[[], Store]) -> None:
    store = make()
    await store.check()
    await store.aclose()

    for question in (store.check(), store.latest("n1"), store.write(delivery(SYSTEM))):
        with pytest.raises(StoreError):
            await question
