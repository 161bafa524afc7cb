"""Group ``agent``: the agent's own health (seed, "AgentStatsCollector").

The wire names are the Go runtime's; `plexd.api.AgentStats` says what each counts here.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from plexd.api import GROUP_AGENT, AgentStats, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.metrics.collectors import process
from plexd.metrics.errors import CollectError

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator
    from datetime import datetime

    from plexd.metrics.ports import Collector, ReconnectCounter

_UINT32 = 2**32


class AgentStatsCollector:
    """One point a cycle. ``start_time`` is when the agent started, ``reconnects`` may be None.

    Uptime is computed from the wall clock once and then runs on the monotonic clock, so that a
    step of the wall clock does not change it.
    """

    def __init__(
        self,
        start_time: datetime,
        reconnects: ReconnectCounter | None = None,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        uptime = (self._clock.now() - start_time).total_seconds()
        self._started = self._clock.monotonic() - max(0.0, uptime)
        self._reconnects = reconnects
        self._logger = logger
        self._gc = process.watch_garbage_collector()

    async def collect(self) -> AsyncIterator[MetricPoint]:
        """Yield the process as it is now. Raises `CollectError` if ``/proc`` cannot be read."""
        try:
            stats = self._read()
        except Exception as err:
            raise CollectError(f"metrics: agent: {err}") from err
        if self._logger is not None:
            self._logger.debug("agent collected", extra={"component": "metrics"})
        yield MetricPoint(timestamp=self._clock.now(), group=GROUP_AGENT, data=stats)

    def _read(self) -> AgentStats:
        memory = process.read_memory()
        return AgentStats(
            goroutine_count=len(asyncio.all_tasks()) + threading.active_count(),
            heap_alloc_bytes=memory.anonymous_bytes,
            heap_sys_bytes=memory.data_bytes,
            gc_pause_total_ns=self._gc.pause_total_ns,
            gc_num_gc=self._gc.collections % _UINT32,
            uptime_seconds=self._clock.monotonic() - self._started,
            reconnect_count=self._reconnects.reconnect_count() if self._reconnects else 0,
        )


if TYPE_CHECKING:
    _: type[Collector] = AgentStatsCollector
