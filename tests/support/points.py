"""The specification's example of a report, as objects and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from plexd.api import (
    AgentStats,
    BatchName,
    LatencyResult,
    MetricBatch,
    MetricPoint,
    Predecessor,
    TunnelStats,
)
from plexd.metrics.testing import system_point

__all__ = [
    "AGENT",
    "EPOCH",
    "EXAMPLE",
    "EXAMPLE_JSON",
    "LATENCY",
    "NOW",
    "SYSTEM",
    "TUNNEL",
    "documents",
    "latency_batch",
    "named",
]

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
EPOCH = "0123456789abcdef0123456789abcdef"

SYSTEM = system_point(NOW)
TUNNEL = MetricPoint(
    timestamp=NOW,
    group="tunnel",
    peer_id="peer-abc-123",
    data=TunnelStats(
        peer_id="peer-abc-123",
        last_handshake_time=NOW - timedelta(seconds=5),
        rx_bytes=104857600,
        tx_bytes=52428800,
        handshake_succeeded=True,
        handshake_stale=False,
        packet_loss_percent=0.5,
    ),
)
LATENCY = MetricPoint(
    timestamp=NOW,
    group="latency",
    peer_id="peer-abc-123",
    data=LatencyResult("peer-abc-123", 15000000),
)
AGENT = MetricPoint(
    timestamp=NOW,
    group="agent",
    data=AgentStats(
        goroutine_count=42,
        heap_alloc_bytes=8388608,
        heap_sys_bytes=16777216,
        gc_pause_total_ns=1500000,
        gc_num_gc=12,
        uptime_seconds=3600.5,
        reconnect_count=3,
    ),
)

EXAMPLE = MetricBatch([SYSTEM, TUNNEL, LATENCY])

# The "API Contract" of the specification, in its own words and spacing.
EXAMPLE_JSON = """\
[
  {
    "timestamp": "2026-02-12T10:30:00Z",
    "group": "system",
    "data": {
      "cpu_usage_percent": 42.5,
      "memory_used_bytes": 2147483648,
      "memory_total_bytes": 8589934592,
      "disk_used_bytes": 53687091200,
      "disk_total_bytes": 107374182400,
      "network_rx_bytes": 1048576,
      "network_tx_bytes": 524288,
      "load_avg_1": 1.5,
      "load_avg_5": 1.2,
      "load_avg_15": 0.9
    }
  },
  {
    "timestamp": "2026-02-12T10:30:00Z",
    "group": "tunnel",
    "peer_id": "peer-abc-123",
    "data": {
      "peer_id": "peer-abc-123",
      "last_handshake_time": "2026-02-12T10:29:55Z",
      "rx_bytes": 104857600,
      "tx_bytes": 52428800,
      "handshake_succeeded": true,
      "handshake_stale": false,
      "packet_loss_percent": 0.5
    }
  },
  {
    "timestamp": "2026-02-12T10:30:00Z",
    "group": "latency",
    "peer_id": "peer-abc-123",
    "data": {
      "peer_id": "peer-abc-123",
      "rtt_nano": 15000000
    }
  }
]
"""


def documents() -> list[dict[str, Any]]:
    """Make a report to damage: one point of each group, system, tunnel, latency, agent."""
    found: list[dict[str, Any]] = json.loads(MetricBatch([*EXAMPLE, AGENT]).to_json())
    return found


def named(
    batch: MetricBatch, first: int = 1, *, dropped: int = 0, after: Predecessor | None = None
) -> MetricBatch:
    """Name the same points by their places in a spool, from ``first`` on."""
    name = BatchName(EPOCH, first, max(len(batch), 1))
    return MetricBatch(batch, name=name, dropped=dropped, after=after)


def latency_batch(count: int) -> MetricBatch:
    return MetricBatch(
        MetricPoint(
            timestamp=NOW,
            group="latency",
            peer_id=f"peer-{i}",
            data=LatencyResult(f"peer-{i}", i),
        )
        for i in range(count)
    )
