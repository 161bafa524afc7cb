"""Rates that are weighted by time, and the gaps between readings."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.api import LatencyResult, MetricPoint, SystemStats
from plexd_server.store import DuckDBStore, Gap, Report, Series, SeriesQuery
from support.points import NOW, SYSTEM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

RX = "network_rx_bytes"
CPU = "cpu_usage_percent"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    made = DuckDBStore(tmp_path)
    yield made
    await made.aclose()


def at(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def reading(seconds: float, rx: int = 0, cpu: float = 10.0) -> MetricPoint:
    assert isinstance(SYSTEM.data, SystemStats)
    data = msgspec.structs.replace(SYSTEM.data, network_rx_bytes=rx, cpu_usage_percent=cpu)
    return MetricPoint(timestamp=NOW + at(seconds), group="system", data=data)


async def written(store: DuckDBStore, readings: Mapping[float, int]) -> None:
    points = [reading(seconds, rx) for seconds, rx in readings.items()]
    last = max((point.timestamp for point in points), default=NOW)
    await store.write(Report("n1", points, last))


async def asked(
    store: DuckDBStore, since: float, until: float, step: float, field: str = RX
) -> Series:
    rates = frozenset({field} & {RX})
    query = SeriesQuery("n1", "system", (field,), rates, NOW + at(since), NOW + at(until), at(step))
    return await store.series(query)


def rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in values]


async def test_a_mean_rate_is_what_moved_divided_by_its_time(store: DuckDBStore) -> None:
    """However unevenly the readings are spaced."""
    await written(store, {0: 0, 50: 5000, 59.999: 5000})

    series = await asked(store, 0, 60, 60)

    assert rounded(series.avg[RX]) == [83.33]
    assert (series.min[RX], series.max[RX]) == ([0.0], [100.0])


async def test_traffic_during_an_outage_of_the_readings_counts_with_its_time(
    store: DuckDBStore,
) -> None:
    late = {1500.0 + 15 * n: 150_000 for n in range(1, 20)}
    await written(store, {0: 0, 1500: 150_000, **late})

    series = await asked(store, 0, 1800, 1800)

    assert rounded(series.avg[RX]) == [round(150_000 / 1785, 2)]


async def test_an_interval_over_several_buckets_gives_each_its_share(store: DuckDBStore) -> None:
    await written(store, {0: 0, 30: 300, 210: 3900, 230: 4100})

    series = await asked(store, 0, 240, 60)

    # 10 B/s for 30 s, then 20 B/s up to 210 s, then 10 B/s.
    assert dict(zip([0, 180], rounded(series.avg[RX]), strict=True)) == {
        0: round((300 + 600) / 60, 2),
        180: round((600 + 200) / 50, 2),
    }


@pytest.mark.parametrize("back", [15, 60, 3600])
async def test_the_first_rate_of_a_range_looks_back_one_reading(
    store: DuckDBStore, back: float
) -> None:
    await written(store, {-back: 0, 10: int(100 * (back + 10))})

    series = await asked(store, 0, 60, 60)

    assert set(rounded(series.avg[RX])) == {100.0}


async def test_a_counter_that_was_reset_has_no_rate_for_that_interval(store: DuckDBStore) -> None:
    await written(store, {0: 9000, 20: 9200, 40: 100, 60: 300})

    series = await asked(store, 0, 61, 90)

    assert rounded(series.avg[RX]) == [10.0]
    assert (series.min[RX], series.max[RX]) == ([10.0], [10.0])


async def test_a_single_reading_has_no_rate_and_a_value(store: DuckDBStore) -> None:
    await written(store, {10: 5000})

    assert (await asked(store, 0, 60, 60)).avg[RX] == [None]
    assert (await asked(store, 0, 60, 60, CPU)).avg[CPU] == [10.0]


async def test_two_readings_of_one_moment_are_no_interval(store: DuckDBStore) -> None:
    points = [reading(0, 0), reading(30, 300), reading(30, 999), reading(60, 600)]
    await store.write(Report("n1", points, NOW + at(60)))

    (mean,) = (await asked(store, 0, 61, 90)).avg[RX]

    assert mean is not None
    assert 0 < mean < 20


async def test_each_peer_has_readings_of_its_own(store: DuckDBStore) -> None:
    points = [
        MetricPoint(
            timestamp=NOW + at(15 * n),
            group="latency",
            peer_id=peer,
            data=LatencyResult(peer, -1 if n % 2 else 1_000_000),
        )
        for n in range(4)
        for peer in ("a", "b")
    ]
    await store.write(Report("n1", points[:-2], NOW + at(60)))
    query = SeriesQuery(
        "n1", "latency", ("rtt_nano",), frozenset(), NOW, NOW + at(60), at(15), peer_id="a"
    )

    assert (await store.series(query)).avg["rtt_nano"] == [1_000_000.0, None, 1_000_000.0]


@pytest.mark.parametrize(
    ("outage_minutes", "hours"), [(14, 24), (90, 168)], ids=["14 min of a day", "90 min of a week"]
)
async def test_an_outage_is_a_gap_however_much_time_is_looked_at(
    store: DuckDBStore, outage_minutes: int, hours: int
) -> None:
    begins = hours * 1800
    moments = [
        60 * n for n in range(hours * 60) if not begins < 60 * n < begins + 60 * outage_minutes
    ]
    await written(store, dict.fromkeys(moments, 0))

    series = await asked(store, 0, 3600 * hours, 3600 * hours / 240, CPU)

    assert series.gaps == [Gap(NOW + at(begins), NOW + at(begins + 60 * outage_minutes))]


async def test_readings_at_their_usual_distance_have_no_gap(store: DuckDBStore) -> None:
    await written(store, dict.fromkeys(range(0, 3600, 300), 0))

    assert (await asked(store, 0, 3600, 15, CPU)).gaps == []


async def test_a_clock_that_was_set_makes_no_rate(store: DuckDBStore) -> None:
    """Readings that were stamped two hours ahead, and then right: no time passed between."""
    ahead = [reading(7200 + 15 * n, 1500 * n) for n in range(4)]
    right = [reading(60 + 15 * n, 6000 + 1500 * n) for n in range(4)]
    for n, point in enumerate(ahead + right):
        await store.write(Report("n1", [point], NOW + at(15 * n)))

    series = await asked(store, 0, 7300, 7300)

    assert set(rounded(series.avg[RX])) == {100.0}
