"""A line in the log once an hour: a pipeline that is well has no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd.metrics.ticks import Ticks

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.clock import Clock
    from plexd.metrics.manager import ManagerStatistics

_EVERY_SECONDS: Final = 3600.0


class SignOfLife:
    """Logs what the pipeline did in the hour since the last such line, and what waits now.

    A pause of the machine is one line at its end, not one for each hour.
    """

    def __init__(
        self, statistics: Callable[[], ManagerStatistics], logger: logging.Logger, clock: Clock
    ) -> None:
        self._statistics = statistics
        self._logger = logger
        self._clock = clock

    async def run(self) -> None:
        """Log until cancelled."""
        ticks = Ticks(self._clock, _EVERY_SECONDS, delay=_EVERY_SECONDS)
        before = _totals(self._statistics())
        while True:
            await ticks.wait()
            statistics = self._statistics()
            now = _totals(statistics)
            extra = {
                "component": "metrics",
                "collected": now[0] - before[0],
                "delivered": now[1] - before[1],
                "waiting": statistics.spool.waiting,
                "lost": now[2] - before[2],
            }
            self._logger.info("metrics pipeline alive", extra=extra)
            before = now


def _totals(statistics: ManagerStatistics) -> tuple[int, int, int]:
    """Return the points that were collected, delivered and lost so far."""
    collected = sum(collector.points for collector in statistics.collectors)
    return collected, statistics.delivery.points, statistics.spool.lost
