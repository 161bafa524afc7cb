"""Group ``system``: the machine as its reader sees it (seed, "SystemCollector")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import GROUP_SYSTEM, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.metrics.errors import CollectError

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator

    from plexd.metrics.ports import Collector, SystemReader


class SystemCollector:
    """One point a cycle, stamped when the reading was complete."""

    def __init__(
        self,
        reader: SystemReader,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._reader = reader
        self._logger = logger
        self._clock = clock or SystemClock()

    async def collect(self) -> AsyncIterator[MetricPoint]:
        """Yield the reader's reading. Raises `CollectError` when there is none."""
        try:
            stats = await self._reader.read_stats()
        except Exception as err:
            raise CollectError(f"metrics: system: {err}") from err
        if self._logger is not None:
            self._logger.debug("system collected", extra={"component": "metrics"})
        yield MetricPoint(timestamp=self._clock.now(), group=GROUP_SYSTEM, data=stats)


if TYPE_CHECKING:
    _: type[Collector] = SystemCollector
