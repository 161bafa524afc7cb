"""How the delivery stands with whoever takes the reports, and what the log says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.log_once import LogOnce
from plexd.metrics.retry import Action, decide

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.clock import Clock

__all__ = ["Backoff", "reason_of"]


class Backoff:
    """Counts failures in a row, draws when the next attempt is due, and tells the log.

    A failure is a warning, collapsed like any other; what an operator must act on carries a
    ``hint`` and is told even if other failures were told just before. The first acceptance is
    told, and the first after a failure that was.

    Attributes:
        attempt: failures in a row.
        failures: failures in all.
        held: why the delivery is held, in the words of who refused it; empty when it is not.
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
        self._is_silent = True

    def failed(self, error: BaseException) -> None:
        """A report failed, or the spool did: another attempt is due later."""
        decision = decide(error, self.attempt)
        reason = reason_of(error)
        wait = decision.draw(self._random())
        self.failures += 1
        self.attempt += 1
        self.held = reason if decision.action is Action.HOLD else ""
        self._due = self._clock.monotonic() + wait
        extra: dict[str, object] = {"hint": decision.hint} if decision.hint else {}
        if self._warnings.warn("metrics report failed", decision.hint, error=reason, **extra):
            self._is_silent = True

    def refused(self, points: int, error: BaseException) -> None:
        """These many points will never be taken."""
        self.failures += 1
        extra = {"error": reason_of(error), "refused": points}
        self._warnings.warn("metrics report failed", "refused", **extra)

    def settled(self, accepted: int) -> None:
        """A batch was answered for good: of its points, ``accepted`` were taken."""
        self.attempt = 0
        self.held = ""
        if accepted and self._is_silent:
            extra = {"component": "metrics", "points": accepted}
            self._logger.info("metrics report accepted", extra=extra)
            self._is_silent = False

    def seconds_left(self) -> float:
        """How long until the next attempt is due; 0 when nothing is waited for."""
        left = self._due - self._clock.monotonic()
        return max(0.0, left) if self.attempt else 0.0


def reason_of(error: BaseException) -> str:
    """The error's text, or its name where it has none."""
    return str(error) or type(error).__name__
