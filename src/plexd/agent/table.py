"""One collection as a table for people, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING

from plexd.agent.text import printable
from plexd.agent.units import format_duration
from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    SystemStats,
    TunnelStats,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from plexd.api import MetricPoint

__all__ = ["collected_table"]

_WIDTH = 80
_WIDEST_PEER = 36  # a UUID


def collected_table(
    points: Sequence[MetricPoint],
    failures: Iterable[tuple[str, str]],
    elapsed: Mapping[str, float],
) -> str:
    """The points group by group, with what failed and the seconds each group took."""
    failures = list(failures)
    present = {*elapsed, *(group for group, _ in failures), *(point.group for point in points)}
    known = [GROUP_SYSTEM, GROUP_TUNNEL, GROUP_LATENCY, GROUP_AGENT]
    groups = [group for group in known if group in present] + sorted(present - set(known))
    blocks = [
        _block(
            group,
            _title(group, elapsed),
            [point for point in points if point.group == group],
            [reason for failed, reason in failures if failed == group],
        )
        for group in groups
    ]
    return "\n\n".join(blocks) + "\n"


def _title(group: str, elapsed: Mapping[str, float]) -> str:
    if group not in elapsed:
        return printable(group)
    seconds = elapsed[group]
    took = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"{printable(group)} ({took})"


def _block(group: str, title: str, points: list[MetricPoint], reasons: list[str]) -> str:
    lines = [title]
    lines += [f"  {line}" for line in _rows(points)]
    for reason in reasons:
        text = printable(f"not collected: {reason}")
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    if len(lines) == 1:
        lines.append("  no peers" if group in {GROUP_TUNNEL, GROUP_LATENCY} else "  nothing")
    return "\n".join(line.rstrip() for line in lines)


def _rows(points: list[MetricPoint]) -> Iterator[str]:
    tunnels = []
    latencies = []
    for point in points:
        if isinstance(point.data, SystemStats):
            yield from _aligned(_system(point.data))
        elif isinstance(point.data, AgentStats):
            yield from _aligned(_agent(point.data))
        elif isinstance(point.data, TunnelStats):
            tunnels.append(_tunnel(point, point.data))
        elif isinstance(point.data, LatencyResult):
            latencies.append((_peer(point.data.peer_id), _round_trip(point.data.rtt_nano)))
        else:
            yield printable(bytes(point.data).decode("utf-8", "replace"))
    if tunnels:
        yield from _columns([("PEER", "HANDSHAKE", "RECEIVED", "SENT", "LOSS"), *tunnels])
    if latencies:
        yield from _columns([("PEER", "ROUND TRIP"), *latencies])


def _system(stats: SystemStats) -> dict[str, str]:
    loads = (stats.load_avg_1, stats.load_avg_5, stats.load_avg_15)
    return {
        "cpu": f"{stats.cpu_usage_percent:.1f} %",
        "memory": _share(stats.memory_used_bytes, stats.memory_total_bytes),
        "disk": _share(stats.disk_used_bytes, stats.disk_total_bytes),
        "network": f"{_size(stats.network_rx_bytes)} received, "
        f"{_size(stats.network_tx_bytes)} sent",
        "load": f"{'  '.join(f'{load:.2f}' for load in loads)}  (1, 5, 15 minutes)",
    }


def _agent(stats: AgentStats) -> dict[str, str]:
    pauses = stats.gc_pause_total_ns / 1e6
    return {
        "uptime": format_duration(timedelta(seconds=int(stats.uptime_seconds))),
        "memory": f"{_size(stats.heap_alloc_bytes)} resident, {_size(stats.heap_sys_bytes)} mapped",
        "tasks": f"{stats.goroutine_count} (with threads)",
        "gc runs": f"{stats.gc_num_gc} ({pauses:.1f} ms of pauses)",
        "reconnects": str(stats.reconnect_count),
    }


def _tunnel(point: MetricPoint, stats: TunnelStats) -> tuple[str, ...]:
    return (
        _peer(stats.peer_id),
        _handshake(point, stats),
        _size(stats.rx_bytes),
        _size(stats.tx_bytes),
        _loss(stats.packet_loss_percent),
    )


def _loss(percent: float) -> str:
    if percent < 0:
        return "?"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def _handshake(point: MetricPoint, stats: TunnelStats) -> str:
    if not stats.handshake_succeeded:
        return "never"
    age = _age((point.timestamp - stats.last_handshake_time).total_seconds())
    return f"{age} stale" if stats.handshake_stale else f"{age} ago"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _round_trip(nanoseconds: int) -> str:
    return "no answer" if nanoseconds < 0 else f"{nanoseconds / 1e6:.2f} ms"


def _peer(peer_id: str) -> str:
    name = printable(peer_id)
    return name if len(name) <= _WIDEST_PEER else f"{name[: _WIDEST_PEER - 3]}..."


def _share(used: int, total: int) -> str:
    percent = f" ({100 * used / total:.0f} %)" if total else ""
    return f"{_size(used)} of {_size(total)}{percent}"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" and value < 100 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} EiB"


def _aligned(pairs: dict[str, str]) -> Iterator[str]:
    widest = max(len(name) for name in pairs)
    for name, value in pairs.items():
        yield f"{name:<{widest}}  {value}"


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, the numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells])
