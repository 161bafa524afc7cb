"""A series read from rollups is the series of their readings, whatever comes in which order."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from itertools import accumulate, count
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from plexd.api import LatencyResult, MetricPoint, TunnelStats
from plexd.clock import SystemClock
from plexd_server.fault_log import FaultLog
from plexd_server.store import COUNTERS, Report, Series, SeriesQuery
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.duckdb.series import read_series
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.embedded.mark_cache import KnownMarks, MarkCache
from plexd_server.store.embedded.staging import StagedReports
from support.points import NOW, TUNNEL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from plexd_server.store.marks import Mark

HOUR: Final = 3600
FIELDS: Final = {
    "tunnel": ("rx_bytes", "tx_bytes", "packet_loss_percent"),
    "latency": ("rtt_nano",),
}


class NothingStored:
    """No marks beside those in memory."""

    def find(self, node_id: str, epoch: str) -> None:
        del node_id, epoch

    def of_node(self, node_id: str) -> list[Mark]:
        del node_id
        return []


class Reading(msgspec.Struct, frozen=True):
    """What a node reads of a peer, and what happens since the reading before.

    Attributes:
        passed: seconds since the one before.
        moved: bytes received; None for a counter that was reset.
        delay: seconds until it arrives, less than 0 for a clock that is ahead.
        rtt: -1 for no answer.
        part: the chunk it comes with.
    """

    passed: float
    moved: int | None = 1000
    delay: float = 30
    rtt: int = 1_000_000
    part: int = 0


READINGS: Final = st.lists(
    st.builds(
        Reading,
        passed=st.sampled_from(
            [0, 0.000001, 1, 15, 15, 60, 299.5, 300, 301, 900, 3600, 5000, 90_000]
        ),
        moved=st.one_of(st.none(), st.integers(0, 2**40)),
        delay=st.sampled_from([30, 30, 30, 0, -30, -200, 4000]),
        rtt=st.sampled_from([-1, 0, 1, 2_000_000, 2**62]),
        part=st.sampled_from([0, 0, 0, 1, 2]),
    ),
    min_size=1,
    max_size=40,
)


class Pair:
    """Two databases with the same points: one with rollups, one without."""

    def __init__(self, directory: Path) -> None:
        log = FaultLog("test", SystemClock())
        self.rolled, self.plain = (
            Tables(directory / f"{name}.duckdb", "128MB", reading=log) for name in ("a", "b")
        )
        self._marks = MarkCache(KnownMarks(), NothingStored())
        self._numbers = count(1)

    def close(self) -> None:
        for tables in (self.rolled, self.plain):
            tables.close()

    def write(self, points: Sequence[tuple[datetime, MetricPoint]]) -> None:
        number, staged = next(self._numbers), StagedReports(self._marks)
        chunk = Chunk(number - 1)
        for arrived, point in points:
            chunk.add(number, staged.add(Report("n", (point,), arrived))[1])
        staged.apply(number)
        for tables in (self.rolled, self.plain):
            tables.load(chunk)

    def roll(self) -> None:
        while self.rolled.roll():
            pass


def points_of(
    base: datetime, readings: Sequence[Reading]
) -> list[tuple[int, datetime, MetricPoint]]:
    """Return what arrives in which part, and when."""
    found, rx = [], 0
    assert isinstance(TUNNEL.data, TunnelStats)
    for reading, seconds in zip(readings, accumulate(r.passed for r in readings), strict=True):
        stamp = base + timedelta(seconds=seconds)
        arrived = stamp + timedelta(seconds=reading.delay)
        rx = 0 if reading.moved is None else rx + reading.moved
        loss = -1.0 if reading.rtt < 0 else reading.rtt % 100 / 7
        tunnel = msgspec.structs.replace(
            TUNNEL.data, peer_id="p", rx_bytes=rx, tx_bytes=rx // 3, packet_loss_percent=loss
        )
        for group, data in (("tunnel", tunnel), ("latency", LatencyResult("p", reading.rtt))):
            point = MetricPoint(timestamp=stamp, group=group, peer_id="p", data=data)
            found.append((reading.part, arrived, point))
    return found


def asked(tables: Tables, group: str, since: datetime, until: datetime, step: int) -> Series:
    fields = FIELDS[group]
    query = SeriesQuery(
        "n", group, fields, COUNTERS & {*fields}, since, until, timedelta(seconds=step), "p"
    )
    return tables.read(lambda cursor: read_series(cursor, query))


def is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-9)


def assert_same(ours: Series, theirs: Series) -> None:
    assert ours.times == theirs.times
    for fold in ("avg", "min", "max"):
        for field, values in getattr(theirs, fold).items():
            pairs = zip(getattr(ours, fold)[field], values, strict=True)
            assert all(is_close(one, other) for one, other in pairs), (fold, field)
    assert [gap.until - gap.since for gap in ours.gaps] == [
        gap.until - gap.since for gap in theirs.gaps
    ]


@example([Reading(15) for _ in range(40)], 0, 100.0, HOUR, 300)
@example([Reading(300, part=n % 2) for n in range(30)], 0, 100.0, 3 * HOUR, HOUR)
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    readings=READINGS,
    ahead=st.sampled_from([0, 1, 299, 1800, 3599.5]),
    begin=st.sampled_from([-10.0, 0.0, 100.0, 300.0, 4000.0, 95_000.0]),
    length=st.sampled_from([600, HOUR, 5 * HOUR, 40 * HOUR]),
    step=st.sampled_from([300, 600, 1500, HOUR, 2 * HOUR, 86_400]),
)
def test_a_series_of_rollups_is_that_of_their_readings(
    readings: list[Reading], ahead: float, begin: float, length: float, step: int
) -> None:
    base = NOW.replace(minute=0)
    points = points_of(base + timedelta(seconds=ahead), readings)
    since = base + timedelta(seconds=begin)
    span = (since, since + timedelta(seconds=length), step)
    with TemporaryDirectory() as directory, closing(Pair(Path(directory))) as pair:
        for part in range(3):
            pair.write([(at, point) for of, at, point in points if of == part])
            for _ in range(2):
                for group in FIELDS:
                    assert_same(asked(pair.rolled, group, *span), asked(pair.plain, group, *span))
                pair.roll()
