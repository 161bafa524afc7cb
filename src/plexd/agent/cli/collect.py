"""One collection as a table for people, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Raw

from plexd.agent.cli.peer_table import peer_table
from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    SystemStats,
)
from plexd.text import printable
from plexd.units import format_duration, round_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from plexd.api import MetricPoint

__all__ = ["collected_table"]

_WIDTH = 80


def collected_table(
    points: Sequence[MetricPoint],
    failures: Iterable[tuple[str, str]],
    elapsed: Mapping[str, float],
    addresses: Mapping[str, str] | None = None,
    unanswered: Iterable[str] = (),
) -> str:
    """The points block by block, with what failed and the seconds each group took.

    Tunnels and latencies share a block with a line for each peer and its address.
    """
    failures = list(failures)
    present = [*elapsed, *(group for group, _ in failures), *(point.group for point in points)]
    blocks = []
    for groups in _blocks(present):
        title = ", ".join(_title(group, elapsed) for group in groups)
        chosen = [point for point in points if point.group in groups]
        lines = _rows(chosen, addresses or {})
        remarks = [f"{g} not collected: {reason}" for g, reason in failures if g in groups]
        remarks += unanswered if GROUP_LATENCY in groups else ()
        blocks.append(_block(title, lines, remarks, nothing=_nothing(groups)))
    return "\n\n".join(blocks) + "\n"


def _blocks(present: Iterable[str]) -> Iterator[list[str]]:
    """The groups that are there, in the order they are shown, those of peers together."""
    known = ([GROUP_SYSTEM], [GROUP_TUNNEL, GROUP_LATENCY], [GROUP_AGENT])
    named = set(present)
    others = named.difference(*known)
    for groups in (*known, *([group] for group in sorted(others))):
        if shown := [group for group in groups if group in named]:
            yield shown


def _nothing(groups: list[str]) -> str:
    return "no peers" if {GROUP_TUNNEL, GROUP_LATENCY}.intersection(groups) else "nothing"


def _title(group: str, elapsed: Mapping[str, float]) -> str:
    if group not in elapsed:
        return printable(group)
    seconds = elapsed[group]
    took = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"{printable(group)} ({took})"


def _block(title: str, rows: list[str], remarks: Iterable[str], *, nothing: str) -> str:
    lines = [title, *(f"  {row}" for row in rows)]
    for remark in remarks:
        text = printable(remark)
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    if len(lines) == 1:
        lines.append(f"  {nothing}")
    return "\n".join(line.rstrip() for line in lines)


def _rows(points: list[MetricPoint], addresses: Mapping[str, str]) -> list[str]:
    rows: list[str] = []
    for point in points:
        if isinstance(point.data, SystemStats):
            rows += _aligned(_system(point.data))
        elif isinstance(point.data, AgentStats):
            rows += _aligned(_agent(point.data))
        elif isinstance(point.data, Raw):
            rows.append(printable(bytes(point.data).decode("utf-8", "replace")))
    return rows + peer_table(points, addresses, _WIDTH - len("  "))


def _system(stats: SystemStats) -> dict[str, str]:
    loads = (stats.load_avg_1, stats.load_avg_5, stats.load_avg_15)
    return {
        "cpu": f"{stats.cpu_usage_percent:.1f} %",
        "memory": _share(stats.memory_used_bytes, stats.memory_total_bytes),
        "disk": _share(stats.disk_used_bytes, stats.disk_total_bytes),
        "network": f"{round_size(stats.network_rx_bytes)} received, "
        f"{round_size(stats.network_tx_bytes)} sent",
        "load": f"{'  '.join(f'{load:.2f}' for load in loads)}  (1, 5, 15 minutes)",
    }


def _agent(stats: AgentStats) -> dict[str, str]:
    pauses = stats.gc_pause_total_ns / 1e6
    return {
        "uptime": format_duration(timedelta(seconds=int(stats.uptime_seconds))),
        "memory": f"{round_size(stats.heap_alloc_bytes)} resident, "
        f"{round_size(stats.heap_sys_bytes)} mapped",
        "tasks": f"{stats.goroutine_count} (with threads)",
        "gc runs": f"{stats.gc_num_gc} ({pauses:.1f} ms of pauses)",
        "reconnects": str(stats.reconnect_count),
    }


def _share(used: int, total: int) -> str:
    percent = f" ({100 * used / total:.0f} %)" if total else ""
    return f"{round_size(used)} of {round_size(total)}{percent}"


def _aligned(pairs: dict[str, str]) -> Iterator[str]:
    widest = max(len(name) for name in pairs)
    for name, value in pairs.items():
        yield f"{name:<{widest}}  {value}"
