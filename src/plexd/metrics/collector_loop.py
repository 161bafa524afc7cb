"""The collecting half of the manager: one loop per collector, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.metrics.collection import Collection
from plexd.metrics.errors import reason_of
from plexd.metrics.ticks import Ticks

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Sequence

    from plexd.api import MetricPoint
    from plexd.clock import Clock
    from plexd.log_once import LogOnce
    from plexd.metrics.ports import Collector


class CollectorStatistics(Struct, frozen=True):
    """A snapshot of one collector's work since the start.

    Attributes:
        name: the collector's class.
        collections: collections that ended, well or not.
        failures: collections that raised, were cut, or had points dropped.
        points: points kept.
        rejected: points dropped, because no receiver could read them or the spool failed.
        missed: ticks that passed while the collector was still running.
    """

    name: str
    collections: int
    failures: int
    points: int
    rejected: int
    missed: int


class CollectorLoop:
    """Runs one collector on the grid, one collection at a time.

    ``sink`` gets each collection's points in one call at its end. A collection is cut when it
    takes longer than the interval. A failure is logged and counted, and never ends the loop;
    the first success after it is logged as well.
    """

    def __init__(
        self,
        collector: Collector,
        interval_seconds: float,
        sink: Callable[[Sequence[MetricPoint]], Awaitable[None]],
        warnings: LogOnce,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._logger = logger
        self._logs_next_success = False
        self._collector = collector
        self._interval = interval_seconds
        self._sink = sink
        self._warnings = warnings
        self._clock = clock
        self._name = type(collector).__name__
        self._collections = self._failures = self._points = self._rejected = 0
        self._stuck_ticks = 0
        self._ticks: Ticks | None = None

    async def run(self) -> None:
        """Collect until cancelled; what a cut collection had yielded by then is kept."""
        self._ticks = Ticks(self._clock, self._interval)
        while True:
            await self._ticks.wait()
            collection, failures = Collection(self._collector, self._clock), self._failures
            try:
                await collection.run(self._interval)
            finally:
                await self._keep(collection)
            if self._failures == failures:
                self._log_success()
            await self._wait_out(collection)

    async def _keep(self, collection: Collection) -> None:
        points, dropped = await collection.points()
        error = collection.error
        try:
            if points:
                await self._sink(points)
            self._points += len(points)
        except Exception as err:  # noqa: BLE001  # nothing a spool does may end the collecting
            error, dropped = err, dropped + len(points)
        self._collections += 1
        self._rejected += dropped
        if error is not None:
            self._failures += 1
            self._warn(error)

    async def _wait_out(self, collection: Collection) -> None:
        """Skip ticks while a collector that ignored its cancellation is still running."""
        ticks = self._ticks
        while ticks is not None and collection.is_stuck:
            await ticks.wait()
            self._stuck_ticks += 1
            self._warn(TimeoutError("still running after it was cut"))

    def _warn(self, err: BaseException) -> None:
        # Two collectors of one class fail separately, so each has warnings of its own.
        about = f"{self._name} {id(self._collector)}"
        reason = reason_of(err)
        if self._warnings.warn("collector failed", about, collector=self._name, error=reason):
            self._logs_next_success = True

    def _log_success(self) -> None:
        """Log the first success after a failure that was logged."""
        if self._logs_next_success:
            extra = {"component": "metrics", "collector": self._name}
            self._logger.info("collector works again", extra=extra)
        self._logs_next_success = False

    def statistics(self) -> CollectorStatistics:
        """What this loop did so far."""
        missed = self._ticks.missed if self._ticks is not None else 0
        return CollectorStatistics(
            name=self._name,
            collections=self._collections,
            failures=self._failures,
            points=self._points,
            rejected=self._rejected,
            missed=missed + self._stuck_ticks,
        )
