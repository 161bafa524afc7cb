"""The manager: collecting on one grid and reporting on another, neither of which delays the other.

collector ─► Collection ─► Spool ─► Delivery ─► reporter
(one loop each)            (one loop)
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.clock import Clock, SystemClock
from plexd.log_once import LogOnce
from plexd.metrics.collector_loop import CollectorLoop, CollectorStatistics
from plexd.metrics.delivery import Delivery, DeliveryStatistics
from plexd.metrics.sign_of_life import SignOfLife
from plexd.spool import MemorySpool, Spool, SpoolStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint
    from plexd.metrics.config import Config
    from plexd.metrics.ports import Collector, MetricReporter

# Long enough for a report on a slow line, shorter than the time service managers give.
_GRACE_SECONDS = 5.0


class ManagerStatistics(Struct, frozen=True):
    """A snapshot of the pipeline.

    Attributes:
        collectors: one entry per collector, in their order.
        spool: what waits, and what became of the rest.
        delivery: what the reporter accepted.
    """

    collectors: tuple[CollectorStatistics, ...]
    spool: SpoolStatistics
    delivery: DeliveryStatistics


class Manager:
    """Orchestrates collection and reporting (seed, "Manager").

    The caller validates ``config`` and closes ``spool``; points that were not delivered when
    `run` ends are still in it.
    """

    def __init__(
        self,
        config: Config,
        collectors: Sequence[Collector],
        reporter: MetricReporter,
        node_id: str,
        logger: logging.Logger | None = None,
        *,
        spool: Spool | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._logger = logger or logging.getLogger("plexd.metrics")
        self._clock = clock or SystemClock()
        self._spool = spool or MemorySpool()
        warnings = LogOnce(self._logger, "metrics", clock=self._clock)
        self._delivery = Delivery(config, self._spool, reporter, node_id, self._logger, self._clock)
        interval = config.collect_interval.total_seconds()
        self._loops = [
            CollectorLoop(collector, interval, self._keep, warnings, self._clock, self._logger)
            for collector in collectors
        ]

    async def run(self) -> None:
        """Collect and report until cancelled, then flush what is left within five seconds.

        Returns at once when metrics are disabled; else ends by raising `CancelledError`. No
        failure of a collector or of the reporter ends it. A second cancellation cuts the flush.
        """
        if not self._config.enabled:
            self._logger.info("metrics disabled", extra={"component": "metrics"})
            return
        try:
            async with asyncio.TaskGroup() as group:
                for loop in self._loops:
                    group.create_task(loop.run())
                group.create_task(self._delivery.run())
                group.create_task(SignOfLife(self.statistics, self._logger, self._clock).run())
        finally:
            await self._delivery.flush(_GRACE_SECONDS)

    async def _keep(self, points: Sequence[MetricPoint]) -> None:
        await self._spool.append(points)
        self._delivery.points_arrived(len(points))

    def statistics(self) -> ManagerStatistics:
        """What the pipeline did so far, and what waits."""
        return ManagerStatistics(
            collectors=tuple(loop.statistics() for loop in self._loops),
            spool=self._spool.statistics(),
            delivery=self._delivery.statistics(),
        )
