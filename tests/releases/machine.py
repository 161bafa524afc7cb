"""A machine that was made up: what an agent with the real collectors reads there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from plexd import metrics
from plexd.api import MetricPoint, TunnelStats
from plexd.metrics.testing import (
    ManualClock,
    ManualPeers,
    ScriptedPinger,
    ScriptedSystemReader,
    ScriptedTunnelReader,
)

__all__ = ["Machine"]

_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)


class Machine:
    """A node of a mesh; its ``clock`` begins at ``now``.

    The tunnel to its first peer is alive; no other peer ever had a handshake, nor answers a ping.
    """

    def __init__(self, now: datetime, *peers: str) -> None:
        self.clock = ManualClock(now)
        self._peers = peers

    async def collect(self) -> list[MetricPoint]:
        """Return one cycle of all four groups."""
        clock, first = self.clock, self._peers[0]
        dead = {peer: TimeoutError("no answer") for peer in self._peers[1:]}
        tunnels = [self._tunnel(peer, is_alive=peer == first) for peer in self._peers]
        collectors: list[metrics.Collector] = [
            metrics.SystemCollector(ScriptedSystemReader(), clock=clock),
            metrics.TunnelCollector(ScriptedTunnelReader(tunnels), clock=clock),
            metrics.LatencyCollector(ScriptedPinger(dead), ManualPeers(*self._peers), clock=clock),
            metrics.AgentStatsCollector(clock.now(), clock=clock),
        ]
        return [point for each in collectors async for point in each.collect()]

    def other(self, **data: object) -> MetricPoint:
        """Return a point of a group that no release knows."""
        raw = msgspec.Raw(msgspec.json.encode(data))
        return MetricPoint(timestamp=self.clock.now(), group="fan_speed", data=raw)

    def _tunnel(self, peer_id: str, *, is_alive: bool) -> TunnelStats:
        return TunnelStats(
            peer_id=peer_id,
            last_handshake_time=self.clock.now() if is_alive else _NEVER,
            rx_bytes=104_857_600 if is_alive else 0,
            tx_bytes=52_428_800 if is_alive else 148,
            handshake_succeeded=is_alive,
            handshake_stale=False,
            packet_loss_percent=5.0 if is_alive else -1.0,
        )
