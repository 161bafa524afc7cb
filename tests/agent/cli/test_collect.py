from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.agent.cli.collect import collected_table
from plexd.api import AgentStats, LatencyResult, MetricPoint, SystemStats, TunnelStats

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str, str], None]

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
NEVER = datetime(1, 1, 1, tzinfo=UTC)
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"

SYSTEM = SystemStats(42.51, 2 * 2**30, 8 * 2**30, 50 * 10**9, 100 * 10**9, 2**20, 999, 1.5, 1.2, 1)
AGENT = AgentStats(42, 8 * 2**20, 16 * 2**20, 1_500_000, 12, 93784.9, 3)


def tunnel(peer_id: str, age: float | None, loss: float, *, stale: bool = False) -> MetricPoint:
    moment = NEVER if age is None else NOW - timedelta(seconds=age)
    stats = TunnelStats(peer_id, moment, 104857600, 2**50, age is not None, stale, loss)
    return MetricPoint(timestamp=NOW, group="tunnel", peer_id=peer_id, data=stats)


def latency(peer_id: str, rtt_nano: int) -> MetricPoint:
    data = LatencyResult(peer_id, rtt_nano)
    return MetricPoint(timestamp=NOW, group="latency", peer_id=peer_id, data=data)


WIDEST = MetricPoint(
    timestamp=NOW,
    group="tunnel",
    peer_id=UUID,
    data=TunnelStats(
        peer_id=UUID,
        last_handshake_time=NOW - timedelta(days=364),
        rx_bytes=1023 * 2**20,
        tx_bytes=1023 * 2**40,
        handshake_succeeded=True,
        handshake_stale=True,
        packet_loss_percent=100,
    ),
)
POINTS = [
    MetricPoint(timestamp=NOW, group="agent", data=AGENT),
    tunnel("peer-abc", 5, 0.5),
    tunnel(UUID, 86400 * 3, 100, stale=True),
    tunnel("peer-new", None, -1),
    tunnel("x" * 256, 59.4, 0),
    tunnel("\x1b[31mred\n", 3700, 1),
    latency("peer-abc", 15_000_000),
    latency("peer-xyz", -1),
    MetricPoint(timestamp=NOW, group="system", data=SYSTEM),
]


def test_a_full_collection_looks_as_recorded(golden: Golden) -> None:
    elapsed = {"system": 0.1012, "tunnel": 0.003, "latency": 2.0, "agent": 0.0004}
    golden("collect_full.txt", collected_table(POINTS, [], elapsed))


def test_a_collection_with_failures_looks_as_recorded(golden: Golden) -> None:
    reason = "no WireGuard interface plexd0; " + "the long explanation goes on " * 4
    failures = [("tunnel", reason), ("latency", "cut at its deadline of 15s"), ("odd", "a\nb")]
    points = [POINTS[-1], latency("peer-abc", 420_000)]
    elapsed = {"system": 0.1, "latency": 15, "agent": 0}
    golden("collect_failures.txt", collected_table(points, failures, elapsed))


@pytest.mark.parametrize("points", [POINTS, [WIDEST] * 3])
def test_no_line_is_wider_than_a_terminal(points: list[MetricPoint]) -> None:
    table = collected_table(points, [("tunnel", "word " * 99)], {"tunnel": 1234.5})
    assert max(len(line) for line in table.splitlines()) <= 80
    assert all(line.isprintable() for line in table.splitlines())


def test_numbers_out_of_the_ordinary_have_a_form() -> None:
    nothing = SystemStats(0, 0, 0, 0, 0, 0, 2**64 - 1, 0, 0, 0)
    table = collected_table([MetricPoint(timestamp=NOW, group="system", data=nothing)], [], {})
    assert "disk     0 B of 0 B\n" in table
    assert "16.0 EiB sent" in table


def test_a_clock_that_was_set_back_shows_no_negative_age() -> None:
    assert "0 s ago" in collected_table([tunnel("a", -30, 0)], [], {})


def test_a_payload_of_unknown_shape_is_printed_as_it_is() -> None:
    point = MetricPoint(timestamp=NOW, group="custom", data=msgspec.Raw(b'{"a":1}'))
    assert collected_table([point], [], {}) == 'custom\n  {"a":1}\n'
