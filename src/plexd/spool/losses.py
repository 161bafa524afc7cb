"""What is lost on the node, as events in its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd.spool.port import LOSSES

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.clock import Clock
    from plexd.spool.port import SpoolStatistics

_EVERY_SECONDS: Final = 300.0
# What was refused is logged with the answer.
_REASONS: Final = tuple(reason for reason in LOSSES if reason != "refused")


class LossLog:
    """Logs how many points a spool lost since it was last logged, and why.

    A line for each reason, at once, and from then on at most one in five minutes.
    """

    def __init__(
        self, statistics: Callable[[], SpoolStatistics], logger: logging.Logger, clock: Clock
    ) -> None:
        self._statistics = statistics
        self._logger = logger
        self._clock = clock
        self._logged = {reason: getattr(statistics(), reason) for reason in _REASONS}
        self._due = dict.fromkeys(_REASONS, float("-inf"))

    def look(self) -> None:
        """Log the losses since the last lines, as far as they are due."""
        found, now = self._statistics(), self._clock.monotonic()
        for reason, logged in self._logged.items():
            points = getattr(found, reason) - logged
            if points > 0 and now >= self._due[reason]:
                self._logged[reason], self._due[reason] = logged + points, now + _EVERY_SECONDS
                extra = {
                    "component": "metrics",
                    "reason": reason,
                    "points": points,
                    "waiting": found.waiting,
                }
                self._logger.warning("points dropped", extra=extra)
