"""One cycle of every collector, outside of a running agent: nothing is kept, nothing is sent."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd import metrics
from plexd.agent.app import build_collectors, build_control_plane, build_tunnels
from plexd.clock import Clock, SystemClock
from plexd.metrics.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.agent.config.settings import Settings
    from plexd.agent.identity import Identity
    from plexd.agent.tunnels import Tunnels
    from plexd.api import MetricPoint

_PEERS_SECONDS = 2.0


class CollectedCycle(Struct, frozen=True):
    """What one cycle brought.

    ``failures`` are ``(group, reason)``, ``elapsed`` the seconds each group took, ``addresses``
    those of the known peers, ``unanswered`` a line for each reason why peers were not pinged or
    pings failed.
    """

    points: list[MetricPoint]
    failures: list[tuple[str, str]]
    elapsed: dict[str, float]
    addresses: dict[str, str]
    unanswered: list[str] = []


async def collect_once(settings: Settings, identity: Identity | None = None) -> CollectedCycle:
    """Run every collector once, each cut at the collect interval.

    They run side by side, but for the last one, the tunnels', whose loss is that of the pings.
    With an ``identity`` the control plane is asked for the peers, which takes two seconds at most.
    """
    clock = SystemClock()
    tunnels = build_tunnels(settings, identity.peers if identity is not None else ())
    left_out = ""
    if tunnels is not None and identity is not None:
        left_out = await _refresh_peers(settings, identity, tunnels)
    deadline = settings.metrics.collect_interval.total_seconds()
    async with tunnels.pinger if tunnels is not None else nullcontext():
        collectors = build_collectors(settings, clock.now(), tunnels)
        *first, last = collectors.values()
        outcomes = await asyncio.gather(
            *(_collect(collector, clock, deadline) for collector in first)
        )
        outcomes.append(await _collect(last, clock, deadline))
    cycle = CollectedCycle([], [], {}, tunnels.addresses() if tunnels is not None else {})
    for group, (points, error, seconds) in zip(collectors, outcomes, strict=True):
        cycle.points.extend(points)
        cycle.elapsed[group] = seconds
        if error is not None:
            cycle.failures.append((group, str(error) or type(error).__name__))
    if left_out:
        cycle.unanswered.append(f"peers left out: {left_out}")
    cycle.unanswered.extend(_unanswered(collectors.get(metrics.GROUP_LATENCY)))
    return cycle


async def _refresh_peers(settings: Settings, identity: Identity, tunnels: Tunnels) -> str:
    """Ask the control plane for the peers; return which of them cannot be used."""
    if not settings.api.base_url or settings.peers:
        return ""
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(_PEERS_SECONDS),
            build_control_plane(settings, identity) as plane,
        ):
            refresh = tunnels.refresh(plane, identity.node_id)
            await refresh.refresh()
            return refresh.left_out
    return ""


async def _collect(
    collector: metrics.Collector, clock: Clock, deadline: float
) -> tuple[list[MetricPoint], BaseException | None, float]:
    started = clock.monotonic()
    collection = Collection(collector, clock)
    await collection.run(deadline)
    points, _ = await collection.points()
    return points, collection.error, clock.monotonic() - started


def _unanswered(collector: metrics.Collector | None) -> Iterator[str]:
    """Yield the reasons why pings failed, each once, with the peers it is the reason for."""
    if not isinstance(collector, metrics.LatencyCollector):
        return
    peers: dict[str, list[str]] = {}
    for peer_id, err in collector.failures:
        reason = getattr(err, "reason", "") or str(err) or type(err).__name__
        peers.setdefault(reason, []).append(peer_id)
    for reason, failed in peers.items():
        named = failed[0] if len(failed) == 1 else f"{len(failed)} peers"
        yield f"no round trip to {named}: {reason}"
