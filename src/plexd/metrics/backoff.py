"""When the next attempt is due after a failed report, and what the log says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.log_once import LogOnce
from plexd.metrics.errors import reason_of
from plexd.metrics.retry import Action, decide

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.clock import Clock


class Backoff:
    """Counts failures in a row, draws when the next attempt is due, and logs.

    A failure is a warning, collapsed like any other. What an operator must act on carries a
    ``hint``, and is logged even if other failures were logged just before. The first success is
    logged, and the first one after a logged failure.

    Attributes:
        attempt: failures in a row.
        failures: failures in all.
        held: the error that holds the delivery; empty when nothing does.
    """

    def __init__(self, logger: logging.Logger, clock: Clock, random: Callable[[], float]) -> None:
        self.attempt = 0
        self.failures = 0
        self.held = ""
        self._logger = logger
        self._warnings = LogOnce(logger, "metrics", clock=clock)
        self._clock = clock
        self._random = random
        self._due = clock.monotonic()
        self._logs_next_success = True
        self._refused = 0

    def failed(self, error: BaseException) -> None:
        """Set the next attempt, after a report or the spool failed."""
        decision = decide(error, self.attempt)
        reason = reason_of(error)
        wait = decision.draw(self._random())
        self.failures += 1
        self.attempt += 1
        self.held = reason if decision.action is Action.HOLD else ""
        self._due = self._clock.monotonic() + wait
        extra: dict[str, object] = {"hint": decision.hint} if decision.hint else {}
        if self._warnings.warn("metrics report failed", decision.hint, error=reason, **extra):
            self._logs_next_success = True

    def rejected(self, points: int, error: BaseException) -> None:
        """Log how many points will never be accepted, since the last such line."""
        self.failures += 1
        self._refused += points
        extra = {"error": reason_of(error), "refused": self._refused}
        if self._warnings.warn("metrics report failed", "refused", **extra):
            self._refused = 0

    def succeeded(self, accepted: int) -> None:
        """End the backoff: a batch is finished, and ``accepted`` of its points were accepted."""
        self.attempt = 0
        self.held = ""
        if accepted and self._logs_next_success:
            extra = {"component": "metrics", "points": accepted}
            self._logger.info("metrics report accepted", extra=extra)
            self._logs_next_success = False

    def seconds_left(self) -> float:
        """How long until the next attempt is due; 0 when there was no failure."""
        left = self._due - self._clock.monotonic()
        return max(0.0, left) if self.attempt else 0.0
