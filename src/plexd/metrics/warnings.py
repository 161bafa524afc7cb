"""Warnings that do not drown the log: the same trouble is told once, then summed up.

The events are the seed's "Logging" table in lower case; every record carries
``component="metrics"`` and the keys of that table in ``extra``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from plexd.clock import SystemClock

if TYPE_CHECKING:
    from plexd.clock import Clock

__all__ = ["COMPONENT", "Warnings"]

COMPONENT = "metrics"

_EVERY_SECONDS = 300.0
_REMEMBERED = 4096


class Warnings:
    """Logs a warning about something at once, and then at most once in five minutes.

    What "the same" is, the event and ``about`` say (a peer, a collector). A line that stands for
    more than itself has their number in ``suppressed``. At most 4,096 subjects are remembered;
    beyond, the one silent for longest may be told anew.
    """

    def __init__(self, logger: logging.Logger | None, *, clock: Clock | None = None) -> None:
        self._logger = logger or logging.getLogger("plexd.metrics")
        self._clock = clock or SystemClock()
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def warn(self, event: str, about: str, **extra: object) -> bool:
        """Log ``event`` with ``extra``, unless the same was told within the last five minutes.

        Whether it was logged.
        """
        key = (event, about)
        now = self._clock.monotonic()
        told, suppressed = self._told.get(key, (None, 0))
        if told is not None and now - told < _EVERY_SECONDS:
            self._told[key] = (told, suppressed + 1)
            return False
        self._told[key] = (now, 0)
        self._told.move_to_end(key)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        if suppressed:
            extra["suppressed"] = suppressed
        self._logger.warning(event, extra={"component": COMPONENT, **extra})
        return True
