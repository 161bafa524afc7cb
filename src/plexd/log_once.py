"""Warnings that do not flood the log: repeated ones are counted instead of logged."""

from __future__ import annotations

import logging
from collections import OrderedDict

from plexd.clock import Clock, SystemClock

_EVERY_SECONDS = 300.0
_REMEMBERED = 4096


class LogOnce:
    """Logs a warning at once, and the same warning at most once in five minutes.

    ``component`` is the part of the program that logs. Two warnings are the same if their event
    and ``about`` (a peer, a collector) are. A line has the number of those left out before it in
    ``suppressed``. At most 4,096 warnings are remembered; beyond that, the one that was logged
    longest ago may be logged again too early.
    """

    def __init__(
        self, logger: logging.Logger | None, component: str, *, clock: Clock | None = None
    ) -> None:
        self._logger = logger or logging.getLogger(f"plexd.{component}")
        self._component = component
        self._clock = clock or SystemClock()
        self._logged: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def warn(self, event: str, about: str, **extra: object) -> bool:
        """Log ``event`` with ``extra``, unless the same was logged in the last five minutes.

        Returns whether it was logged.
        """
        key = (event, about)
        now = self._clock.monotonic()
        logged_at, suppressed = self._logged.get(key, (None, 0))
        if logged_at is not None and now - logged_at < _EVERY_SECONDS:
            self._logged[key] = (logged_at, suppressed + 1)
            return False
        self._logged[key] = (now, 0)
        self._logged.move_to_end(key)
        if len(self._logged) > _REMEMBERED:
            self._logged.popitem(last=False)
        if suppressed:
            extra["suppressed"] = suppressed
        self._logger.warning(event, extra={"component": self._component, **extra})
        return True
