"""Points that differ from each other: the n-th is about ``peer-n``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from plexd.api import LatencyResult, MetricPoint

__all__ = ["latency_points"]

_START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


def latency_points(count: int, first: int = 0) -> list[MetricPoint]:
    """Make ``count`` points, beginning with ``first``."""
    return [
        MetricPoint(
            timestamp=_START + timedelta(seconds=i),
            group="latency",
            peer_id=f"peer-{i}",
            data=LatencyResult(f"peer-{i}", i),
        )
        for i in range(first, first + count)
    ]
