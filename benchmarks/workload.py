"""The points that a node of a large mesh measures; they are the same in every run."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from plexd.api import TunnelStats

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


def peer_ids(count: int) -> list[str]:
    """Make ids in the form of a control plane's."""
    return [f"node-{i:05}.site-{i % 37:02}" for i in range(count)]


def tunnels(peers: list[str]) -> list[TunnelStats]:
    """Make one tunnel for each peer: most healthy, some stale, with counters of a busy week."""
    chance = random.Random(20260212)  # noqa: S311  # a workload, not a secret
    return [
        TunnelStats(
            peer_id=peer,
            last_handshake_time=NOW - timedelta(microseconds=chance.randrange(180_000_000)),
            rx_bytes=chance.randrange(10**12),
            tx_bytes=chance.randrange(10**12),
            handshake_succeeded=True,
            handshake_stale=chance.random() < 0.02,
            packet_loss_percent=round(max(0.0, chance.gauss(0, 1)), 2),
        )
        for peer in peers
    ]


def round_trips(peers: list[str]) -> dict[str, int]:
    """Make one round trip for each peer in nanoseconds: 1 to 200 ms, one in fifty unreachable."""
    chance = random.Random(15)  # noqa: S311  # a workload, not a secret
    return {
        peer: -1 if chance.random() < 0.02 else chance.randrange(1_000_000, 200_000_000)
        for peer in peers
    }
