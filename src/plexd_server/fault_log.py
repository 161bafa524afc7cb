"""Failures of what is stored, logged for the operator without filling the log."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_REPEAT_SECONDS = 60.0


class FaultLog:
    """Logs at once that something fails, once a minute that it still does, and when it is over.

    Used from several threads.
    """

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._silent_until = 0.0

    @property
    def failing(self) -> bool:
        """Return whether the last attempt failed."""
        return self._failures > 0

    def failed(self, cause: BaseException) -> None:
        """Count a failed attempt, and log it if it is the first or a minute has passed."""
        with self._lock:
            self._failures += 1
            now = self._clock.monotonic()
            if self._failures > 1 and now < self._silent_until:
                return
            self._silent_until = now + _REPEAT_SECONDS
        fields = {"what": self._what, "error": str(cause), "failures": self._failures}
        _LOG.error("the store fails", extra=fields)

    def worked(self) -> None:
        """Forget the failures, and log their number if there were any."""
        with self._lock:
            failures, self._failures = self._failures, 0
        if failures:
            fields = {"what": self._what, "failures": failures}
            _LOG.warning("the store works again", extra=fields)
