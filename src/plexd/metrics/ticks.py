"""Ticks on a grid that does not drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.clock import Clock


class Ticks:
    """The moments ``start + n * interval``, n = 0, 1, 2 …, on the monotonic clock.

    ``start`` is ``delay`` seconds from now. Of the moments that passed while nobody waited, the
    latest is due at once and the others are counted in ``missed``: after a pause there is one
    tick, never a burst, and the grid stays where it was.
    """

    def __init__(self, clock: Clock, interval: float, *, delay: float = 0.0) -> None:
        self._clock = clock
        self._interval = interval
        self._start = clock.monotonic() + delay
        self._next = 0
        self.missed = 0

    def seconds_left(self) -> float:
        """How long until the next tick; 0 when it is due."""
        due = self._start + self._next * self._interval
        return max(0.0, due - self._clock.monotonic())

    def advance(self) -> None:
        """Go on to the tick after the one that is due."""
        elapsed = self._clock.monotonic() - self._start
        latest = max(self._next, int(elapsed // self._interval))
        self.missed += latest - self._next
        self._next = latest + 1

    async def wait(self) -> None:
        """Return when the next tick is due, and advance; other tasks get their turn in any case."""
        await self._clock.sleep(self.seconds_left())
        self.advance()
