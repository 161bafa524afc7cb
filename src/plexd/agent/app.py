"""The composition root: the one place that knows all parts and puts them together.

       LinuxSystemReader ─► SystemCollector ─┐
    WireGuardStatsReader ─► TunnelCollector ─┤
    PeerIndex, ICMPPinger ► LatencyCollector ┼► Manager ─► [MultiReporter ─►] ControlPlane
                         AgentStatsCollector ┘                           └──► LocalReporter

What is built here is also closed here, in reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from plexd import metrics
from plexd.agent.peerwatch import PeerWatch
from plexd.api import ControlPlane
from plexd.clock import SystemClock
from plexd.icmp import ICMPPinger
from plexd.metrics.collection import Collection
from plexd.procfs import LinuxSystemReader
from plexd.wireguard import PeerIndex, WireGuardError, WireGuardStatsReader

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from datetime import datetime

    from plexd.agent.config import Settings
    from plexd.agent.identity import Identity
    from plexd.api import MetricPoint, Peer
    from plexd.clock import Clock

__all__ = ["CollectReport", "collect_once", "has_tunnels", "run"]

_logger = logging.getLogger("plexd")


class CollectReport(Struct, frozen=True):
    """One cycle of every collector, nothing sent.

    ``failures`` are ``(group, reason)``, ``elapsed`` the seconds each group took, ``addresses``
    those of the peers that are known.
    """

    points: list[MetricPoint]
    failures: list[tuple[str, str]]
    elapsed: dict[str, float]
    addresses: dict[str, str]


class _Peers:
    """The mesh's other nodes and the way to each: what tunnels and latencies are read with."""

    def __init__(self, settings: Settings, known: Iterable[Peer]) -> None:
        self.index = PeerIndex(settings.peers or known)
        self.pinger = ICMPPinger(
            lambda peer_id: str(self.index.address(peer_id)), timeout=settings.ping.timeout
        )


async def run(settings: Settings, identity: Identity) -> None:
    """Run the agent until cancelled; a disabled pipeline returns at once.

    Points that are not delivered when it is cancelled get five seconds more.
    """
    start_time = SystemClock().now()
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(_control_plane(settings, identity))
        reporter = await _reporter(settings, identity, plane, stack)
        peers = _Peers(settings, identity.peers)
        await stack.enter_async_context(peers.pinger)
        collectors = _collectors(settings, start_time, peers, plane)
        manager = metrics.Manager(
            settings.metrics,
            list(collectors.values()),
            reporter,
            identity.node_id,
            logging.getLogger("plexd.metrics"),
        )
        _logger.info("agent started", extra=_about(settings, identity))
        if settings.metrics.enabled:
            _in_background(stack, _greet(settings))
            if settings.wireguard.interface and not settings.peers:
                watch = PeerWatch(peers.index, plane, identity.node_id, _logger)
                _in_background(stack, watch.run())
        await manager.run()


def _in_background(stack: AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    """Let ``work`` go on until ``stack`` is left."""
    stack.push_async_callback(_ended, asyncio.create_task(work))


def _about(settings: Settings, identity: Identity) -> dict[str, object]:
    return {
        "component": "agent",
        "node_id": identity.node_id,
        "control_plane": settings.api.base_url,
        "collect_interval": settings.metrics.collect_interval,
        "report_interval": settings.metrics.report_interval,
    }


def _control_plane(settings: Settings, identity: Identity) -> ControlPlane:
    """The client; a token in the configuration outranks the one the node was created with."""
    token = settings.api.auth_token or identity.auth_token
    return ControlPlane(replace(settings.api, auth_token=token), logger=_logger)


async def _reporter(
    settings: Settings, identity: Identity, plane: ControlPlane, stack: AsyncExitStack
) -> metrics.MetricReporter:
    """The control plane alone or, if a local endpoint is configured, both."""
    endpoint = settings.metrics.local_endpoint
    if not endpoint.url:
        return plane
    nsk = identity.node_secret_key.encode()
    logger = logging.getLogger("plexd.metrics")
    local = await stack.enter_async_context(
        metrics.LocalReporter(endpoint, plane, nsk, identity.node_id, logger)
    )
    multi = await stack.enter_async_context(metrics.MultiReporter(plane, local, logger))
    extra = {"component": "metrics", "pipeline": "metrics", "url": endpoint.url}
    logger.info("local endpoint enabled", extra=extra)
    return multi


def _collectors(
    settings: Settings,
    start_time: datetime,
    peers: _Peers,
    reconnects: metrics.ReconnectCounter | None = None,
) -> dict[str, metrics.Collector]:
    """Every collector that is configured, by its metric group."""
    logger = logging.getLogger("plexd.metrics")
    reader = LinuxSystemReader(settings.system.mount_point, settings.system.net_iface)
    collectors: dict[str, metrics.Collector] = {
        metrics.GROUP_SYSTEM: metrics.SystemCollector(reader, logger),
        metrics.GROUP_AGENT: metrics.AgentStatsCollector(start_time, reconnects, logger),
    }
    if settings.wireguard.interface:
        tunnels = _tunnel_reader(settings, peers)
        latency = metrics.LatencyCollector(peers.pinger, peers.index, logger)
        collectors[metrics.GROUP_LATENCY] = latency
        collectors[metrics.GROUP_TUNNEL] = metrics.TunnelCollector(tunnels, logger)
    return collectors


def _tunnel_reader(settings: Settings, peers: _Peers) -> WireGuardStatsReader:
    return WireGuardStatsReader(
        settings.wireguard.interface,
        peers.index,
        loss=peers.pinger.loss,
        stale_after=settings.wireguard.stale_after,
    )


async def has_tunnels(settings: Settings) -> bool:
    """Whether the configured WireGuard interface is there and can be read."""
    try:
        await _tunnel_reader(settings, _Peers(settings, ())).read_tunnel_stats()
    except WireGuardError:
        return False
    return True


async def _greet(settings: Settings) -> None:
    """Tell at the start whether there is anybody to report to: the first report is a while off."""
    parts = urlsplit(settings.api.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(settings.api.connect_timeout.total_seconds()):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except OSError as err:  # TimeoutError is one
        extra = {
            "component": "agent",
            "control_plane": settings.api.base_url,
            "error": _why(err),
            "hint": "points are kept and sent once it is; if the address is wrong, correct "
            "api.base_url and restart",
        }
        _logger.warning("control plane not reachable", extra=extra)
        return
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _why(err: OSError) -> str:
    # asyncio puts a text of its own in place of the system's; a lookup's error number is another's.
    if err.errno is None or isinstance(err, socket.gaierror):
        return err.strerror or str(err) or "no answer in time"
    return os.strerror(err.errno)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def collect_once(settings: Settings) -> CollectReport:
    """One cycle of every collector, each cut at the collect interval.

    Side by side, but for the tunnels, which come last: their loss is that of the pings.
    """
    clock = SystemClock()
    peers = _Peers(settings, ())
    deadline = settings.metrics.collect_interval.total_seconds()
    async with peers.pinger:
        collectors = _collectors(settings, clock.now(), peers)
        tunnels = collectors.pop(metrics.GROUP_TUNNEL, None)
        outcomes = await asyncio.gather(
            *(_collect(collector, clock, deadline) for collector in collectors.values())
        )
        if tunnels is not None:
            collectors[metrics.GROUP_TUNNEL] = tunnels
            outcomes.append(await _collect(tunnels, clock, deadline))
    addresses = {peer_id: str(peers.index.address(peer_id)) for peer_id in peers.index.peer_ids()}
    report = CollectReport([], [], {}, addresses)
    for group, (points, error, seconds) in zip(collectors, outcomes, strict=True):
        report.points.extend(points)
        report.elapsed[group] = seconds
        if error is not None:
            report.failures.append((group, str(error) or type(error).__name__))
    return report


async def _collect(
    collector: metrics.Collector, clock: Clock, deadline: float
) -> tuple[list[MetricPoint], BaseException | None, float]:
    started = clock.monotonic()
    collection = Collection(collector, clock)
    await collection.run(deadline)
    points, _ = await collection.points()
    return points, collection.error, clock.monotonic() - started
