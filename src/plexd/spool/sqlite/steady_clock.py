"""The spool's own clock, by which the age of points is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.spool.sqlite.meta import Meta


class SteadyClock:
    """Continues where the last process left it; never goes back.

    While the process runs it follows the monotonic clock, so that a step of the wall clock makes
    nothing expire. How long the process was away only the wall clock knows.
    """

    def __init__(self, clock: Clock, meta: Meta) -> None:
        self._clock = clock
        away = self.wall_ms() - meta.wall_ms if meta.wall_ms else 0
        self._start = meta.steady_ms + max(0, away) - self._monotonic_ms()

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def now_ms(self) -> int:
        """Return milliseconds since the spool was made."""
        return self._start + self._monotonic_ms()

    def wall_ms(self) -> int:
        """Return the wall clock, since 1970."""
        return int(self._clock.now().timestamp() * 1000)
