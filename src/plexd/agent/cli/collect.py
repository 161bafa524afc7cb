"""``plexd collect``: one cycle of every collector, as a table of at most 80 columns or as JSON.

Tunnels and round trips stand side by side in the table, one line for each peer.
"""

from __future__ import annotations

import asyncio
import textwrap
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Raw

from plexd.agent import one_cycle
from plexd.agent.errors import IdentityError, SettingsError
from plexd.agent.identity import Identity, load_identity
from plexd.agent.node_token import with_token
from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    MetricBatch,
    MetricPoint,
    SystemStats,
    TunnelStats,
)
from plexd.console import complain, put
from plexd.logs import setup_logging
from plexd.text import printable
from plexd.units import format_duration, round_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from plexd.agent.config.settings import Settings

_WIDTH = 80
_HEAD = ("PEER", "ADDRESS", "HANDSHAKE", "RECEIVED", "SENT", "RTT", "LOSS")
_UNKNOWN = "-"
_GAP = "  "
_NARROWEST_PEER = 12


def collect(settings: Settings, *, as_json: bool) -> int:
    """Print one cycle; 1 if nothing at all was collected. Nothing is sent or stored."""
    # What failed is part of the result; the log would only say it twice.
    level = "debug" if settings.log.level == "debug" else "error"
    setup_logging(level, settings.log.format)
    cycle = asyncio.run(one_cycle.collect_once(settings, _identity_if_any(settings)))
    failures = [(group, why.removeprefix(f"metrics: {group}: ")) for group, why in cycle.failures]
    if as_json:
        put(f"{MetricBatch(cycle.points).to_json().decode()}\n")
        for remark in (*(f"{group}: {reason}" for group, reason in failures), *cycle.unanswered):
            complain("plexd", remark)
    else:
        table = (cycle.points, failures, cycle.elapsed, cycle.addresses, cycle.unanswered)
        put(collected_table(*table))
    if not cycle.points:
        complain("plexd", "nothing could be collected")
    return 0 if cycle.points else 1


def _identity_if_any(settings: Settings) -> Identity | None:
    """The node's identity, if it may be read; without an identity, peers have no names."""
    if settings.data_dir is None:
        return None
    try:
        identity = load_identity(settings.data_dir)
    except IdentityError:
        return None
    try:
        return with_token(identity, settings)
    except SettingsError as err:  # the peers of the enrolment are known all the same
        complain("plexd", f"warning: {err}")
        return identity


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
    """Yield the groups that are there, in the order of the table, those of peers together."""
    known = ([GROUP_SYSTEM], [GROUP_TUNNEL, GROUP_LATENCY], [GROUP_AGENT])
    named = set(present)
    others = named.difference(*known)
    for groups in (*known, *([group] for group in sorted(others))):
        if there := [group for group in groups if group in named]:
            yield there


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
            rows += _pairs(_system(point.data))
        elif isinstance(point.data, AgentStats):
            rows += _pairs(_agent(point.data))
        elif isinstance(point.data, Raw):
            rows.append(printable(bytes(point.data).decode("utf-8", "replace")))
    return rows + _peer_table(points, addresses, _WIDTH - len(_GAP))


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


def _pairs(pairs: dict[str, str]) -> Iterator[str]:
    widest = max(len(name) for name in pairs)
    for name, value in pairs.items():
        yield f"{name:<{widest}}  {value}"


def _peer_table(
    points: Iterable[MetricPoint], addresses: Mapping[str, str], width: int
) -> list[str]:
    """A line for each peer under a heading, names cut to fit ``width``, without empty columns."""
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
    return _columns([_HEAD, *rows], width)


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


def _columns(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
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
