"""Fakes of what the collectors read from, and of collectors themselves.

Each returns its script's next entry at every call and repeats the last one for ever; an entry that
is an exception is raised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from plexd.api import GROUP_SYSTEM, MetricPoint, SystemStats, TunnelStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from plexd.metrics.ports import (
        Collector,
        PeerLister,
        Pinger,
        ReconnectCounter,
        SystemReader,
        TunnelStatsReader,
    )

_T = TypeVar("_T")

STATS = SystemStats(
    cpu_usage_percent=42.5,
    memory_used_bytes=2147483648,
    memory_total_bytes=8589934592,
    disk_used_bytes=53687091200,
    disk_total_bytes=107374182400,
    network_rx_bytes=1048576,
    network_tx_bytes=524288,
    load_avg_1=1.5,
    load_avg_5=1.2,
    load_avg_15=0.9,
)


def system_point(timestamp: datetime) -> MetricPoint:
    """A valid point, for tests that need any point: the seed's example of the group ``system``."""
    return MetricPoint(timestamp=timestamp, group=GROUP_SYSTEM, data=STATS)


class _Script(Generic[_T]):
    def __init__(self, entries: Sequence[_T | BaseException]) -> None:
        self._entries = list(entries)

    def next(self) -> _T:
        entry = self._entries[0]
        if len(self._entries) > 1:
            del self._entries[0]
        if isinstance(entry, BaseException):
            raise entry
        return entry


class ScriptedSystemReader:
    """A `SystemReader`; without a script it reads the seed's example."""

    def __init__(self, *script: SystemStats | BaseException) -> None:
        self._script = _Script(script or (STATS,))

    async def read_stats(self) -> SystemStats:
        return self._script.next()


class ScriptedTunnelReader:
    """A `TunnelStatsReader`; without a script there are no tunnels."""

    def __init__(self, *script: Sequence[TunnelStats] | BaseException) -> None:
        self._script = _Script(script or ((),))

    async def read_tunnel_stats(self) -> Sequence[TunnelStats]:
        return self._script.next()


class ScriptedPinger:
    """A `Pinger` with an answer for each peer; a peer without one answers in 15 ms.

    A peer in ``held`` answers only once `release` is called for it.
    """

    def __init__(
        self, rtts: Mapping[str, int | BaseException] | None = None, *, held: Sequence[str] = ()
    ) -> None:
        self._rtts = dict(rtts or {})
        self._gates = {peer_id: asyncio.Event() for peer_id in held}
        self.under_way: list[str] = []

    async def ping(self, peer_id: str) -> int:
        """The scripted round trip in nanoseconds, or the scripted exception."""
        self.under_way.append(peer_id)
        try:
            if peer_id in self._gates:
                await self._gates[peer_id].wait()
        finally:
            self.under_way.remove(peer_id)
        rtt = self._rtts.get(peer_id, 15_000_000)
        if isinstance(rtt, BaseException):
            raise rtt
        return rtt

    def release(self, peer_id: str) -> None:
        """Let ``peer_id`` answer from now on."""
        self._gates[peer_id].set()


class ManualPeers:
    """A `PeerLister` whose peers are an attribute."""

    def __init__(self, *peers: str) -> None:
        self.peers: Sequence[str] = peers

    def peer_ids(self) -> Sequence[str]:
        return self.peers


class ManualReconnects:
    """A `ReconnectCounter` whose count is an attribute."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def reconnect_count(self) -> int:
        return self.count


class ScriptedCollector:
    """A `Collector`: each cycle yields one entry's items in order, raising those that are errors.

    It waits for an `asyncio.Event` among the items. Items need not be points, so that a test can
    see what happens to those that are not. ``closed`` counts iterators that were closed.
    """

    def __init__(self, *cycles: Sequence[object]) -> None:
        self._script = _Script(cycles or ((),))
        self.started = 0
        self.closed = 0

    async def collect(self) -> AsyncIterator[MetricPoint]:
        self.started += 1
        try:
            for item in self._script.next():
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    yield item  # type: ignore[misc]  # scripts may hold what is no point
        finally:
            self.closed += 1


if TYPE_CHECKING:
    _system: type[SystemReader] = ScriptedSystemReader
    _tunnel: type[TunnelStatsReader] = ScriptedTunnelReader
    _pinger: type[Pinger] = ScriptedPinger
    _peers: type[PeerLister] = ManualPeers
    _reconnects: type[ReconnectCounter] = ManualReconnects
    _collector: type[Collector] = ScriptedCollector
