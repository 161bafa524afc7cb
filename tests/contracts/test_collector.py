"""What every `Collector` promises."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from plexd import metrics
from plexd.api import MetricBatch, TunnelStats, check_points, decode_batch
from plexd.metrics.testing import (
    ManualPeers,
    ScriptedCollector,
    ScriptedPinger,
    ScriptedSystemReader,
    ScriptedTunnelReader,
    system_point,
)

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
BROKEN = OSError("no such device")
TUNNEL = TunnelStats("peer-1", NOW, 1, 2, True, False, -1.0)  # noqa: FBT003  # the wire's order

Factory = Callable[[], metrics.Collector]

GOOD: dict[str, Factory] = {
    "system": lambda: metrics.SystemCollector(ScriptedSystemReader()),
    "tunnel": lambda: metrics.TunnelCollector(ScriptedTunnelReader([TUNNEL])),
    "latency": lambda: metrics.LatencyCollector(ScriptedPinger(), ManualPeers("peer-1")),
    "agent": lambda: metrics.AgentStatsCollector(NOW),
    "scripted": lambda: ScriptedCollector([system_point(NOW)]),
}


class FaultyPeers:
    def peer_ids(self) -> list[str]:
        raise BROKEN


class FaultyReconnects:
    def reconnect_count(self) -> int:
        raise BROKEN


FAULTY: dict[str, Factory] = {
    "system": lambda: metrics.SystemCollector(ScriptedSystemReader(BROKEN)),
    "tunnel": lambda: metrics.TunnelCollector(ScriptedTunnelReader(BROKEN)),
    "latency": lambda: metrics.LatencyCollector(ScriptedPinger(), FaultyPeers()),
    "agent": lambda: metrics.AgentStatsCollector(NOW, FaultyReconnects()),
}


@pytest.mark.parametrize("name", GOOD)
async def test_it_yields_points_a_receiver_accepts(name: str) -> None:
    points = [point async for point in GOOD[name]().collect()]
    assert len(points) == 1
    check_points(points)
    batch = MetricBatch(points)
    assert decode_batch(batch.to_json()) == batch


@pytest.mark.parametrize("name", GOOD)
async def test_it_can_be_asked_again_and_again(name: str) -> None:
    collector = GOOD[name]()
    for _ in range(3):
        assert len([point async for point in collector.collect()]) == 1


@pytest.mark.parametrize("name", GOOD)
async def test_it_can_be_closed_after_the_first_point(name: str) -> None:
    iterator = GOOD[name]().collect()
    await anext(iterator)
    await iterator.aclose()  # type: ignore[attr-defined]  # all of ours are generators


@pytest.mark.parametrize("name", GOOD)
def test_it_satisfies_the_port(name: str) -> None:
    assert isinstance(GOOD[name](), metrics.Collector)


@pytest.mark.parametrize("name", FAULTY)
async def test_a_broken_source_is_a_collect_error_with_its_cause(name: str) -> None:
    with pytest.raises(metrics.CollectError, match=f"^metrics: {name}: no such device$") as caught:
        _ = [point async for point in FAULTY[name]().collect()]
    assert caught.value.__cause__ is BROKEN
