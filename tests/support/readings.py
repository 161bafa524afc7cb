"""Points of a mesh, one reading at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from plexd.api import LatencyResult, MetricPoint, TunnelStats

__all__ = ["NEVER", "latency", "reading", "tunnel"]

NEVER = datetime(1, 1, 1, tzinfo=UTC)


def tunnel(
    peer: str,
    at: datetime,
    *,
    handshake_age: float | None = 40.0,
    moved: int = 0,
    rx: int | None = None,
    loss: float = 0.0,
) -> MetricPoint:
    """Make a tunnel point; ``handshake_age`` is None for a peer without a handshake."""
    last = NEVER if handshake_age is None else at - timedelta(seconds=handshake_age)
    return MetricPoint(
        timestamp=at,
        group="tunnel",
        peer_id=peer,
        data=TunnelStats(
            peer_id=peer,
            last_handshake_time=last,
            rx_bytes=moved if rx is None else rx,
            tx_bytes=moved,
            handshake_succeeded=handshake_age is not None,
            handshake_stale=handshake_age is not None and handshake_age > 180,
            packet_loss_percent=loss,
        ),
    )


def latency(peer: str, at: datetime, rtt_nano: int = 14_000_000) -> MetricPoint:
    """Make a latency point; -1 is no answer."""
    data = LatencyResult(peer, rtt_nano)
    return MetricPoint(timestamp=at, group="latency", peer_id=peer, data=data)


def reading(
    peer: str,
    at: datetime,
    *,
    rtt_nano: int = 14_000_000,
    handshake_age: float | None = 40.0,
    moved: int = 0,
    rx: int | None = None,
    loss: float = 0.0,
) -> list[MetricPoint]:
    """Make both points, the round trip a second later."""
    first = tunnel(peer, at, handshake_age=handshake_age, moved=moved, rx=rx, loss=loss)
    return [first, latency(peer, at + timedelta(seconds=1), rtt_nano)]
