"""What a simulated node reads at a moment, as the points that an agent would report. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from plexd.api import AgentStats, LatencyResult, MetricPoint, SystemStats, TunnelStats
from plexd_server.simulate.world import CLOCK_AHEAD, FULL_DISK, Path, World, noise

if TYPE_CHECKING:
    from collections.abc import Sequence


_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)
_GIB: Final = 2**30
_DAY: Final = 86_400
_HANDSHAKE_BYTES_PER_SECOND: Final = 30  # an attempt every five seconds
_LOSS_UNKNOWN: Final = -1.0


def read_node(
    world: World, node: int, names: Sequence[str], start: datetime, at: float
) -> list[MetricPoint]:
    """Return the points of one collection, ``at`` seconds after ``start`` by the node's clock."""
    moment = start + timedelta(seconds=at + CLOCK_AHEAD.get(node, 0.0))
    points = [
        MetricPoint(timestamp=moment, group="system", data=_system(node, moment, at)),
        MetricPoint(timestamp=moment, group="agent", data=_agent(node, at)),
    ]
    for peer in world.peers(node):
        points += _peer(names[peer], moment, world.path(node, peer, at), _bytes_rate(node, peer))
    return points


def _peer(name: str, moment: datetime, path: Path, rate: float) -> list[MetricPoint]:
    tunnel = MetricPoint(
        timestamp=moment, group="tunnel", peer_id=name, data=_tunnel(name, moment, path, rate)
    )
    if not path.pinged:
        return [tunnel]
    rtt = round(path.rtt_seconds * 1e9) if path.answered else -1
    later = moment + timedelta(milliseconds=20)
    data = LatencyResult(name, rtt)
    return [tunnel, MetricPoint(timestamp=later, group="latency", peer_id=name, data=data)]


def _tunnel(name: str, moment: datetime, path: Path, rate: float) -> TunnelStats:
    age = path.handshake_age
    silent = path.passed - path.alive
    attempts = silent * _HANDSHAKE_BYTES_PER_SECOND
    return TunnelStats(
        peer_id=name,
        last_handshake_time=_NEVER if age is None else moment - timedelta(seconds=age),
        rx_bytes=int(path.alive * rate),
        tx_bytes=int(path.alive * rate * 0.8 + attempts),
        handshake_succeeded=age is not None,
        handshake_stale=age is not None and age > 180,
        packet_loss_percent=path.loss_percent if path.pinged else _LOSS_UNKNOWN,
    )


def _system(node: int, moment: datetime, at: float) -> SystemStats:
    busy = _busyness(node, moment)
    cpu = min(100.0, max(0.5, 100 * busy + 9 * (noise(node, at) - 0.5)))
    memory, disk = (4 + 4 * (node % 4)) * _GIB, (40 + 20 * (node % 5)) * _GIB
    used = 0.964 if node == FULL_DISK else 0.25 + 0.5 * noise(node, 5)
    passed = at + 6 * 3600
    rate = 40_000 * (1 + 3 * noise(node, 6))
    return SystemStats(
        cpu_usage_percent=round(cpu, 1),
        memory_used_bytes=int(memory * (0.35 + 0.25 * noise(node, 7) + 0.1 * busy)),
        memory_total_bytes=memory,
        disk_used_bytes=int(disk * used + passed * 800),
        disk_total_bytes=disk,
        network_rx_bytes=int(rate * (passed + 300 * math.sin(passed / 600))),
        network_tx_bytes=int(rate * 0.7 * (passed + 300 * math.sin(passed / 600 + 1))),
        load_avg_1=round(4 * busy + noise(node, at, 8) / 2, 2),
        load_avg_5=round(4 * busy + 0.2, 2),
        load_avg_15=round(4 * busy + 0.15, 2),
    )


def _busyness(node: int, moment: datetime) -> float:
    """Return a share of the processor: quiet nights, busy afternoons, and the node's own wave."""
    seconds = moment.timestamp()
    day = 0.5 - 0.5 * math.cos(2 * math.pi * (seconds % _DAY - 4 * 3600) / _DAY)
    wave = math.sin(seconds / (400 + 60 * (node % 7)) + node)
    return 0.06 + 0.3 * noise(node, 4) * day + 0.05 * (1 + wave)


def _agent(node: int, at: float) -> AgentStats:
    passed = at + 6 * 3600
    return AgentStats(
        goroutine_count=14 + node % 3,
        heap_alloc_bytes=int(21e6 + 2e6 * noise(node, at, 9)),
        heap_sys_bytes=int(34e6),
        gc_pause_total_ns=int(passed * 41_000),
        gc_num_gc=int(passed / 7),
        uptime_seconds=round(passed, 3),
        reconnect_count=node % 2,
    )


def _bytes_rate(here: int, there: int) -> float:
    """Return bytes per second, the same in both directions of a pair."""
    low, high = sorted((here, there))
    return 120 + 9000 * noise(low, high, 2) ** 3
