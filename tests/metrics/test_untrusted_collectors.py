"""Collectors that yield anything at all, through the manager to a receiver."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plexd.api import decode_batch
from plexd.metrics import Config, Manager
from plexd.metrics.collection import MOST_POINTS
from plexd.metrics.testing import ManualClock, RecordingReporter, ScriptedCollector, system_point
from support.points import AGENT, LATENCY, SYSTEM, TUNNEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from plexd.api import MetricPoint
    from plexd.metrics import CollectorStatistics

NODE = "node-1"
A_MILLION = 1_000_000

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**63 - 2, 2**64 + 2),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.datetimes(),
    st.builds(object),
)


@st.composite
def spoilt(draw: st.DrawFn) -> object:
    """A point with one field of it, or of its payload, made anything; or no point at all."""
    point: Any = draw(st.sampled_from([SYSTEM, TUNNEL, LATENCY, AGENT]))
    if draw(st.booleans()):
        return _with(draw, point)
    if draw(st.booleans()):
        return msgspec.structs.replace(point, data=_with(draw, point.data))
    return draw(values)


def _with(draw: st.DrawFn, struct: Any) -> Any:
    field = draw(st.sampled_from(struct.__struct_fields__))
    return msgspec.structs.replace(struct, **{field: draw(values)})


async def collected(yields: Sequence[Any]) -> tuple[Sequence[MetricPoint], CollectorStatistics]:
    """What is reported of one collection that yields these, and what is counted."""
    clock, reporter = ManualClock(), RecordingReporter()
    config = Config(collect_interval=timedelta(days=1), batch_size=1000)
    collector = ScriptedCollector(yields, [])
    manager = Manager(config, [collector], reporter, NODE, clock=clock)
    running = asyncio.create_task(manager.run())
    await clock.advance(1)
    running.cancel()
    await clock.advance(10)
    await asyncio.wait([running])
    for batch in reporter.batches:
        decode_batch(batch.to_json())  # any receiver could read what was sent
    return reporter.points, manager.statistics().collectors[0]


# The time to draw an example only depends on how busy the machine is.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(spoilt() | st.sampled_from([SYSTEM, TUNNEL, LATENCY, AGENT]), max_size=12))
def test_every_yielded_point_is_reported_readably_or_dropped_and_counted(
    yields: list[Any],
) -> None:
    points, counted = asyncio.run(collected(yields))
    assert len(points) + counted.rejected == len(yields)
    assert counted.points == len(points)
    kept = iter(yields)
    assert all(any(point is each or point == each for each in kept) for point in points)


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("system", "cpu_usage_percent", math.nan),
        ("system", "load_avg_1", math.inf),
        ("system", "memory_used_bytes", -1),
        ("system", "network_rx_bytes", 2**64),
        ("tunnel", "rx_bytes", -1),
        ("tunnel", "packet_loss_percent", math.nan),
        ("latency", "rtt_nano", -2),
        ("latency", "rtt_nano", 1.5),
    ],
)
async def test_an_impossible_value_costs_its_point_alone(
    group: str, field: str, value: float
) -> None:
    good = {"system": SYSTEM, "tunnel": TUNNEL, "latency": LATENCY}[group]
    data: Any = good.data
    bad = msgspec.structs.replace(good, data=msgspec.structs.replace(data, **{field: value}))
    points, counted = await collected([good, bad, good])
    assert points == [good, good]
    assert (counted.rejected, counted.failures) == (1, 1)


@pytest.mark.slow
async def test_of_a_million_points_a_bounded_number_is_kept_and_the_collector_is_cut() -> None:
    clock, reporter = ManualClock(), RecordingReporter()
    asked = 0

    class Flood:
        async def collect(self) -> AsyncIterator[MetricPoint]:
            nonlocal asked
            point = system_point(clock.now())
            while asked < A_MILLION:
                asked += 1
                yield point

    config = Config(collect_interval=timedelta(days=1), batch_size=10_000)
    manager = Manager(config, [Flood()], reporter, NODE, clock=clock)
    running = asyncio.create_task(manager.run())
    await clock.advance(1)
    running.cancel()
    await asyncio.wait([running])
    assert asked == MOST_POINTS + 1
    assert manager.statistics().collectors[0].points == MOST_POINTS
