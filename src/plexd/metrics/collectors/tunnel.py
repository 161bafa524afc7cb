"""Group ``tunnel``: every peer's tunnel as its reader sees it (seed, "TunnelCollector")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import GROUP_TUNNEL, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.metrics.errors import CollectError

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator

    from plexd.metrics.ports import Collector, TunnelStatsReader


class TunnelCollector:
    """One point per peer and cycle, all with the stamp of their common reading."""

    def __init__(
        self,
        reader: TunnelStatsReader,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._reader = reader
        self._logger = logger
        self._clock = clock or SystemClock()

    async def collect(self) -> AsyncIterator[MetricPoint]:
        """Yield the tunnels in the reader's order. Raises `CollectError` if it cannot read."""
        try:
            tunnels = tuple(await self._reader.read_tunnel_stats())
        except Exception as err:
            raise CollectError(f"metrics: tunnel: {err}") from err
        if self._logger is not None:
            extra = {"component": "metrics", "peers": len(tunnels)}
            self._logger.debug("tunnels collected", extra=extra)
        now = self._clock.now()
        for stats in tunnels:
            yield MetricPoint(timestamp=now, group=GROUP_TUNNEL, peer_id=stats.peer_id, data=stats)


if TYPE_CHECKING:
    _: type[Collector] = TunnelCollector
