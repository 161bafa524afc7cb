"""The system and tunnel collectors: what they make of a reading."""

from __future__ import annotations

from plexd.api import MetricBatch, TunnelStats
from plexd.metrics import SystemCollector, TunnelCollector
from plexd.metrics.testing import ManualClock, ScriptedSystemReader, ScriptedTunnelReader


async def test_a_reading_of_the_machine_is_one_point_without_a_peer() -> None:
    clock = ManualClock()
    points = [p async for p in SystemCollector(ScriptedSystemReader(), clock=clock).collect()]
    assert len(points) == 1
    assert (points[0].group, points[0].peer_id) == ("system", "")
    assert points[0].timestamp == clock.now()
    assert (
        MetricBatch(points)
        .to_json()
        .startswith(
            b'[{"timestamp":"2026-02-12T10:30:00Z","group":"system","data":{"cpu_usage_percent":42.5,'
        )
    )


async def test_every_tunnel_is_a_point_with_its_peer() -> None:
    clock = ManualClock()
    stats = [
        TunnelStats(
            peer_id=peer,
            last_handshake_time=clock.now(),
            rx_bytes=1,
            tx_bytes=2,
            handshake_succeeded=True,
            handshake_stale=False,
            packet_loss_percent=-1,
        )
        for peer in ("b", "a")
    ]
    reader = ScriptedTunnelReader(stats)
    points = [p async for p in TunnelCollector(reader, clock=clock).collect()]
    assert [(p.group, p.peer_id, p.data) for p in points] == [
        ("tunnel", "b", stats[0]),
        ("tunnel", "a", stats[1]),
    ]


async def test_no_tunnels_is_no_points() -> None:
    assert [p async for p in TunnelCollector(ScriptedTunnelReader()).collect()] == []
