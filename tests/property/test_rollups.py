"""A series read from rollups is the series of their readings, whatever comes in which order."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plexd.api import LatencyResult, MetricPoint, TunnelStats
from plexd_server.store.duckdb import rolling
from support.points import NOW, TUNNEL
from support.rollups import FIELDS, Pair, asked, assert_same

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

pytestmark = pytest.mark.slow

HOUR: Final = 3600


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


@example([Reading(15) for _ in range(40)], 0, 100.0, HOUR, 300, 150_000)
@example([Reading(15) for _ in range(40)], 0, 100.0, HOUR, 300, 10)
@example([Reading(300, part=n % 2) for n in range(30)], 0, 100.0, 3 * HOUR, HOUR, 1)
@example([Reading(300, part=n % 2) for n in range(30)], 0, 100.0, 3 * HOUR, HOUR, 150_000)
@settings(max_examples=6, deadline=None)  # a database each
@given(
    readings=READINGS,
    ahead=st.sampled_from([0, 1, 299, 1800, 3599.5]),
    begin=st.sampled_from([-10.0, 0.0, 100.0, 300.0, 4000.0, 95_000.0]),
    length=st.sampled_from([600, HOUR, 5 * HOUR, 40 * HOUR]),
    step=st.sampled_from([300, 600, 1500, HOUR, 2 * HOUR, 86_400]),
    most_rows=st.sampled_from([1, 10, 150_000]),
)
def test_a_series_of_rollups_is_that_of_their_readings_and_stays_when_they_are_gone(
    readings: list[Reading], ahead: float, begin: float, length: float, step: int, most_rows: int
) -> None:
    base = NOW.replace(minute=0)
    points = points_of(base + timedelta(seconds=ahead), readings)
    since = base + timedelta(seconds=begin)
    span = (since, since + timedelta(seconds=length), step)
    early = timedelta(seconds=begin % 300)
    aligned = (span[0] - early, span[1] - early, step)
    with (
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory() as directory,
        closing(Pair(Path(directory))) as pair,
    ):
        patch.setattr(rolling, "MOST_ROWS", most_rows)
        for part in range(3):
            pair.write([(at, point) for of, at, point in points if of == part])
            for _ in range(2):
                for group in FIELDS:
                    assert_same(asked(pair.rolled, group, *span), asked(pair.plain, group, *span))
                pair.roll()
        pair.expire(base + timedelta(hours=1))
        for group in FIELDS:
            assert_same(asked(pair.rolled, group, *aligned), asked(pair.plain, group, *aligned))
