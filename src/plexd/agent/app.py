"""The composition root: the one place that knows all parts and connects them.

       LinuxSystemReader ─► SystemCollector ─┐
    WireGuardStatsReader ─► TunnelCollector ─┤
    PeerIndex, ICMPPinger ► LatencyCollector ┼► Manager ─► [MultiReporter ─►] ControlPlane
                         AgentStatsCollector ┘                           └──► LocalReporter

What is built here is also closed here, in reverse order.
"""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from plexd import metrics
from plexd.agent.errors import NotReadyError, SettingsError
from plexd.agent.greeting import greet
from plexd.agent.watchdog import (
    Watchdog,
    notify_systemd,
    systemd_notifier,
    watchdog_interval,
)
from plexd.api import ControlPlane, Peer
from plexd.background import in_background
from plexd.clock import SystemClock
from plexd.procfs import LinuxSystemReader
from plexd.spool import MemorySpool, Spool, SpoolLockedError
from plexd.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from plexd.agent.config.settings import Settings
    from plexd.agent.identity import Identity
    from plexd.agent.tunnels import Tunnels

_logger = logging.getLogger("plexd")

# Without a data directory points wait in memory, and a node has less spare memory than disk.
_MOST_IN_MEMORY = 16 * 1024 * 1024


async def run(
    settings: Settings, identity: Identity, read_token: Callable[[], str] | None = None
) -> None:
    """Run the agent until cancelled; a disabled pipeline returns at once.

    When it is cancelled, points that are not delivered get five more seconds. ``read_token``
    finds a newer token when the control plane refuses the one in use; it may block.
    """
    start_time = SystemClock().now()
    async with AsyncExitStack() as stack:
        plane = build_control_plane(settings, identity, read_token)
        await stack.enter_async_context(plane)
        reporter = await _reporter(settings, identity, plane, stack)
        tunnels = build_tunnels(settings, identity.peers)
        collectors = build_collectors(settings, start_time, tunnels, plane)
        if tunnels is not None:
            await stack.enter_async_context(tunnels.pinger)
        manager = metrics.Manager(
            settings.metrics,
            list(collectors.values()),
            reporter,
            identity.node_id,
            logging.getLogger("plexd.metrics"),
            spool=await _spool(settings, identity.node_id, stack),
        )
        _logger.info("agent started", extra=_about(settings, identity))
        notify_systemd(os.environ, "READY=1")
        try:
            if settings.metrics.enabled:
                alive, often = systemd_notifier(os.environ), watchdog_interval(os.environ)
                watchdog = Watchdog(_logger, notify=alive, every_seconds=often)
                greeting = greet(settings.api, _logger, lambda: _is_accepted(manager))
                works = (greeting, watchdog.run())
                await stack.enter_async_context(in_background(*works))
                if tunnels is not None and not settings.peers:
                    refresh = tunnels.refresh(plane, identity.node_id, _logger)
                    await stack.enter_async_context(in_background(refresh.run()))
                    await refresh.wait_for_answer()
            await manager.run()
        finally:
            notify_systemd(os.environ, "STOPPING=1")
            _logger.info("agent stopped", extra=_outcome(manager.statistics()))


def _is_accepted(manager: metrics.Manager) -> bool:
    return manager.statistics().delivery.batches > 0


def _outcome(done: metrics.ManagerStatistics) -> dict[str, object]:
    spool = done.spool
    return {
        "component": "agent",
        "delivered": done.delivery.points,
        "undelivered": spool.waiting + spool.lost,
    }


async def _spool(settings: Settings, node_id: str, stack: AsyncExitStack) -> Spool:
    """The spool on the disk if there is a data directory, else in memory."""
    bounds = settings.spool
    if settings.data_dir is None or not settings.metrics.enabled:
        memory = MemorySpool(max_bytes=min(bounds.max_bytes, _MOST_IN_MEMORY))
        return await stack.enter_async_context(memory)
    from plexd.spool import DiskSpool  # noqa: PLC0415 - brings SQLite with it

    directory = settings.data_dir / "spool"
    spool = DiskSpool(
        directory,
        node_id=node_id,
        max_bytes=bounds.max_bytes,
        max_age=bounds.max_age,
    )
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


def build_control_plane(
    settings: Settings, identity: Identity, read_token: Callable[[], str] | None = None
) -> ControlPlane:
    """The client; a token in the configuration outranks the identity's.

    Raises `SettingsError` for what the client refuses, should the checks have let it pass.
    """
    token = settings.api.auth_token or identity.auth_token
    config = replace(settings.api, auth_token=token)
    try:
        return ControlPlane(config, logger=_logger, read_token=read_token)
    except ValueError as err:
        raise SettingsError("", "api", printable(str(err))) from None


async def _reporter(
    settings: Settings, identity: Identity, plane: ControlPlane, stack: AsyncExitStack
) -> metrics.MetricReporter:
    """The control plane alone or, if a local endpoint is configured, both."""
    endpoint = settings.metrics.local_endpoint
    if not endpoint.url:
        return plane
    logger = logging.getLogger("plexd.metrics")
    local = await stack.enter_async_context(_build_local(settings, identity, plane))
    multi = await stack.enter_async_context(metrics.MultiReporter(plane, local, logger))
    extra = {"component": "metrics", "pipeline": "metrics", "url": endpoint.url}
    logger.info("local endpoint enabled", extra=extra)
    return multi


def _build_local(
    settings: Settings, identity: Identity, plane: ControlPlane
) -> metrics.LocalReporter:
    nsk = identity.node_secret_key.encode()
    logger = logging.getLogger("plexd.metrics")
    endpoint = settings.metrics.local_endpoint
    return metrics.LocalReporter(endpoint, plane, nsk, identity.node_id, logger)


def build_tunnels(settings: Settings, known: Iterable[Peer] = ()) -> Tunnels | None:
    """The tunnels of the configured interface; None without one. ``known`` peers are the first."""
    if not settings.wireguard.interface:
        return None
    from plexd.agent.tunnels import Tunnels  # noqa: PLC0415  # only nodes of a mesh need it

    return Tunnels(settings, known)


def build_collectors(
    settings: Settings,
    start_time: datetime,
    tunnels: Tunnels | None,
    reconnects: metrics.ReconnectCounter | None = None,
) -> dict[str, metrics.Collector]:
    """Every collector that is configured, by its metric group."""
    logger = logging.getLogger("plexd.metrics")
    reader = LinuxSystemReader(settings.system.mount_point, settings.system.net_iface)
    return {
        metrics.GROUP_SYSTEM: metrics.SystemCollector(reader, logger),
        metrics.GROUP_AGENT: metrics.AgentStatsCollector(start_time, reconnects, logger),
        **(tunnels.collectors() if tunnels is not None else {}),
    }


def build_parts(settings: Settings, identity: Identity) -> None:
    """Build every part of an agent and forget it; nothing is opened. Raises what a run would."""
    start_time = SystemClock().now()
    plane = build_control_plane(settings, identity)
    build_collectors(settings, start_time, build_tunnels(settings, identity.peers), plane)
    if settings.metrics.local_endpoint.url:
        _build_local(settings, identity, plane)


async def has_tunnels(settings: Settings) -> bool:
    """Whether the configured WireGuard interface is there and can be read."""
    tunnels = build_tunnels(settings)
    return tunnels is not None and await tunnels.is_there()
