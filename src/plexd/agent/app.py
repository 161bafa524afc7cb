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
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from plexd import metrics
from plexd.agent.errors import NotReadyError
from plexd.agent.peer_refresh import PeerRefresh
from plexd.agent.watchdog import LoopWatch, watchdog
from plexd.api import ControlPlane
from plexd.background import in_background
from plexd.clock import SystemClock
from plexd.metrics.collection import Collection
from plexd.procfs import LinuxSystemReader
from plexd.spool import MemorySpool, SpoolLockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from plexd.agent.config.settings import Settings
    from plexd.agent.identity import Identity
    from plexd.agent.tunnels import Tunnels
    from plexd.api import MetricPoint, Peer
    from plexd.clock import Clock
    from plexd.spool import Spool

__all__ = ["CollectOutcome", "collect_once", "has_tunnels", "run"]

_logger = logging.getLogger("plexd")

# Without a data directory points wait in memory, of which a node has less to spare than of disk.
_MOST_IN_MEMORY = 16 * 1024 * 1024
_PEERS_SECONDS = 2.0


class CollectOutcome(Struct, frozen=True):
    """One cycle of every collector, nothing sent.

    ``failures`` are ``(group, reason)``, ``elapsed`` the seconds each group took, ``addresses``
    those of the peers that are known, ``unanswered`` a line for each reason why pings failed.
    """

    points: list[MetricPoint]
    failures: list[tuple[str, str]]
    elapsed: dict[str, float]
    addresses: dict[str, str]
    unanswered: list[str] = []


async def run(
    settings: Settings, identity: Identity, read_token: Callable[[], str] | None = None
) -> None:
    """Run the agent until cancelled; a disabled pipeline returns at once.

    Points that are not delivered when it is cancelled get five seconds more. ``read_token``
    finds a newer token when the control plane refuses the one in use; it may block.
    """
    start_time = SystemClock().now()
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(_control_plane(settings, identity, read_token))
        reporter = await _reporter(settings, identity, plane, stack)
        mesh = _mesh(settings, identity.peers)
        collectors = _collectors(settings, start_time, mesh, plane)
        if mesh is not None:
            await stack.enter_async_context(mesh.pinger)
        manager = metrics.Manager(
            settings.metrics,
            list(collectors.values()),
            reporter,
            identity.node_id,
            logging.getLogger("plexd.metrics"),
            spool=await _spool(settings, stack),
        )
        _logger.info("agent started", extra=_about(settings, identity))
        try:
            if settings.metrics.enabled:
                watch = LoopWatch(_logger, still_alive=watchdog(os.environ))
                await stack.enter_async_context(in_background(_greet(settings), watch.run()))
                if mesh is not None and not settings.peers:
                    refresh = PeerRefresh(mesh.index, plane, identity.node_id, _logger)
                    await stack.enter_async_context(in_background(refresh.run()))
                    await refresh.wait_for_answer()
            await manager.run()
        finally:
            _logger.info("agent stopped", extra=_outcome(manager.statistics()))


def _outcome(done: metrics.ManagerStatistics) -> dict[str, object]:
    spool = done.spool
    return {
        "component": "agent",
        "delivered": done.delivery.points,
        "undelivered": spool.waiting + spool.lost,
    }


async def _spool(settings: Settings, stack: AsyncExitStack) -> Spool:
    """On the disk if there is a data directory, else in memory."""
    bounds = settings.spool
    if settings.data_dir is None or not settings.metrics.enabled:
        memory = MemorySpool(max_bytes=min(bounds.max_bytes, _MOST_IN_MEMORY))
        return await stack.enter_async_context(memory)
    from plexd.spool import DiskSpool  # noqa: PLC0415 - brings SQLite with it

    directory = settings.data_dir / "spool"
    logger = logging.getLogger("plexd.spool")
    spool = DiskSpool(directory, max_bytes=bounds.max_bytes, max_age=bounds.max_age, logger=logger)
    try:
        return await stack.enter_async_context(spool)
    except SpoolLockedError as err:
        raise NotReadyError(
            f"{directory}: {err}; end that agent first, or give this one its own data_dir"
        ) from err


def _about(settings: Settings, identity: Identity) -> dict[str, object]:
    return {
        "component": "agent",
        "node_id": identity.node_id,
        "control_plane": settings.api.base_url,
        "collect_interval": settings.metrics.collect_interval,
        "report_interval": settings.metrics.report_interval,
    }


def _control_plane(
    settings: Settings, identity: Identity, read_token: Callable[[], str] | None
) -> ControlPlane:
    """The client; a token in the configuration outranks the one the node was created with."""
    token = settings.api.auth_token or identity.auth_token
    config = replace(settings.api, auth_token=token)
    return ControlPlane(config, logger=_logger, read_token=read_token)


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


def _mesh(settings: Settings, known: Iterable[Peer] = ()) -> Tunnels | None:
    """The mesh this node is configured for, if any."""
    if not settings.wireguard.interface:
        return None
    from plexd.agent.tunnels import Tunnels  # noqa: PLC0415  # paid for by nodes of a mesh only

    return Tunnels(settings, known)


def _collectors(
    settings: Settings,
    start_time: datetime,
    mesh: Tunnels | None,
    reconnects: metrics.ReconnectCounter | None = None,
) -> dict[str, metrics.Collector]:
    """Every collector that is configured, by its metric group."""
    logger = logging.getLogger("plexd.metrics")
    reader = LinuxSystemReader(settings.system.mount_point, settings.system.net_iface)
    return {
        metrics.GROUP_SYSTEM: metrics.SystemCollector(reader, logger),
        metrics.GROUP_AGENT: metrics.AgentStatsCollector(start_time, reconnects, logger),
        **(mesh.collectors() if mesh is not None else {}),
    }


async def has_tunnels(settings: Settings) -> bool:
    """Whether the configured WireGuard interface is there and can be read."""
    mesh = _mesh(settings)
    return mesh is not None and await mesh.is_there()


async def _greet(settings: Settings) -> None:
    """Tell at the start whether there is anybody to report to: the first report is a while off."""
    parts = urlsplit(settings.api.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(settings.api.connect_timeout.total_seconds()):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, UnicodeError) as err:  # TimeoutError is the former; the latter is a bad name
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


def _why(err: OSError | UnicodeError) -> str:
    if isinstance(err, UnicodeError):
        return f"no such name can be looked up: {err}"
    # asyncio puts a text of its own in place of the system's; a lookup's error number is another's.
    if err.errno is None or isinstance(err, socket.gaierror):
        return err.strerror or str(err) or "no answer in time"
    return os.strerror(err.errno)


async def _ask_for_peers(settings: Settings, identity: Identity, mesh: Tunnels) -> None:
    async with _control_plane(settings, identity, None) as plane:
        await PeerRefresh(mesh.index, plane, identity.node_id, _logger).refresh()


async def collect_once(settings: Settings, identity: Identity | None = None) -> CollectOutcome:
    """One cycle of every collector, each cut at the collect interval.

    Side by side, but for the last one, the tunnels', whose loss is that of the pings. With an
    ``identity`` the control plane is asked for the peers, which takes two seconds at most.
    """
    clock = SystemClock()
    mesh = _mesh(settings, identity.peers if identity is not None else ())
    if mesh is not None and identity is not None and settings.api.base_url and not settings.peers:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PEERS_SECONDS):
                await _ask_for_peers(settings, identity, mesh)
    deadline = settings.metrics.collect_interval.total_seconds()
    async with mesh.pinger if mesh is not None else nullcontext():
        collectors = _collectors(settings, clock.now(), mesh)
        *first, last = collectors.values()
        outcomes = await asyncio.gather(
            *(_collect(collector, clock, deadline) for collector in first)
        )
        outcomes.append(await _collect(last, clock, deadline))
    report = CollectOutcome([], [], {}, mesh.addresses() if mesh is not None else {})
    for group, (points, error, seconds) in zip(collectors, outcomes, strict=True):
        report.points.extend(points)
        report.elapsed[group] = seconds
        if error is not None:
            report.failures.append((group, str(error) or type(error).__name__))
    report.unanswered.extend(_unanswered(collectors.get(metrics.GROUP_LATENCY)))
    return report


def _unanswered(collector: metrics.Collector | None) -> Iterator[str]:
    """The reasons why pings failed, each once, with the peers it stands for."""
    if not isinstance(collector, metrics.LatencyCollector):
        return
    peers: dict[str, list[str]] = {}
    for peer_id, err in collector.failures:
        reason = getattr(err, "reason", "") or str(err) or type(err).__name__
        peers.setdefault(reason, []).append(peer_id)
    for reason, failed in peers.items():
        named = failed[0] if len(failed) == 1 else f"{len(failed)} peers"
        yield f"no round trip to {named}: {reason}"


async def _collect(
    collector: metrics.Collector, clock: Clock, deadline: float
) -> tuple[list[MetricPoint], BaseException | None, float]:
    started = clock.monotonic()
    collection = Collection(collector, clock)
    await collection.run(deadline)
    points, _ = await collection.points()
    return points, collection.error, clock.monotonic() - started
