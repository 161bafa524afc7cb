"""Tunnels and round trips of one collection, side by side for each peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import LatencyResult, TunnelStats
from plexd.text import printable
from plexd.units import round_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint

__all__ = ["peer_table"]

_HEAD = ("PEER", "ADDRESS", "HANDSHAKE", "RECEIVED", "SENT", "RTT", "LOSS")
_UNKNOWN = "-"
_GAP = "  "
_NARROWEST_PEER = 12


def peer_table(
    points: Iterable[MetricPoint], addresses: Mapping[str, str], width: int
) -> list[str]:
    """A line for each peer in ``points`` under a heading, names cut so that ``width`` is enough.

    Columns that nobody has anything for are left out.
    """
    tunnels: dict[str, tuple[str, ...]] = {}
    round_trips: dict[str, str] = {}
    for point in points:
        if isinstance(point.data, TunnelStats):
            tunnels[point.data.peer_id] = _tunnel(point.timestamp, point.data)
        elif isinstance(point.data, LatencyResult):
            round_trips[point.data.peer_id] = _round_trip(point.data.rtt_nano)
    if not tunnels and not round_trips:
        return []
    rows = [
        _row(peer, addresses, tunnels.get(peer), round_trips.get(peer))
        for peer in [*tunnels, *(peer for peer in round_trips if peer not in tunnels)]
    ]
    return _aligned([_HEAD, *rows], width)


def _row(
    peer: str,
    addresses: Mapping[str, str],
    tunnel: tuple[str, ...] | None,
    round_trip: str | None,
) -> tuple[str, ...]:
    handshake, received, sent, loss = tunnel or (_UNKNOWN,) * 4
    address = printable(addresses.get(peer, _UNKNOWN))
    return (printable(peer), address, handshake, received, sent, round_trip or _UNKNOWN, loss)


def _tunnel(now: datetime, stats: TunnelStats) -> tuple[str, ...]:
    return (
        _handshake(now, stats),
        round_size(stats.rx_bytes),
        round_size(stats.tx_bytes),
        _loss(stats.packet_loss_percent),
    )


def _handshake(now: datetime, stats: TunnelStats) -> str:
    if not stats.handshake_succeeded:
        return "never"
    age = _age((now - stats.last_handshake_time).total_seconds())
    return f"{age} stale" if stats.handshake_stale else f"{age} ago"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _loss(percent: float) -> str:
    if percent < 0:
        return "?"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def _round_trip(nanoseconds: int) -> str:
    return "no answer" if nanoseconds < 0 else f"{nanoseconds / 1e6:.2f} ms"


def _aligned(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """The first two columns to the left, the numbers to the right."""
    columns = [
        column for column in zip(*rows, strict=True) if any(cell != _UNKNOWN for cell in column[1:])
    ]
    others = sum(len(_GAP) + max(map(len, column)) for column in columns[1:])
    columns[0] = tuple(
        _shortened(cell, max(_NARROWEST_PEER, width - others)) for cell in columns[0]
    )
    cells = [_padded(column, left=column[0] in _HEAD[:2]) for column in columns]
    return [_GAP.join(line).rstrip() for line in zip(*cells, strict=True)]


def _padded(column: tuple[str, ...], *, left: bool) -> list[str]:
    widest = max(map(len, column))
    return [cell.ljust(widest) if left else cell.rjust(widest) for cell in column]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
