"""How fast a backlog may be sent: bounded, but never slower than points are produced."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from plexd.rates import TokenBucket

if TYPE_CHECKING:
    from plexd.clock import Clock

# At this rate a backlog of a day at 100 peers is gone in twenty minutes, and a thousand nodes that
# come back at once stay within what one server can accept.
_LEAST_RATE = 10.0
# Twice as fast as live: a backlog shrinks as fast as it would have grown, and a cycle's last batch,
# which may be nearly empty, is paid for (a cycle of x >= 1 batches makes at most 2x).
_TIMES_LIVE = 2.0
_BURST = 10


class Pace:
    """Allows ten batches a second or twice the live rate, whichever is more.

    The live rate is that of the points produced in the last ``window_seconds``, in batches of
    ``batch_size``. Ten batches may be sent at once.
    """

    def __init__(self, batch_size: int, window_seconds: float, clock: Clock) -> None:
        self._batch_size = batch_size
        self._window = window_seconds
        self._clock = clock
        self._bucket = TokenBucket(_BURST, clock)
        self._produced: deque[tuple[float, int]] = deque()
        self._points = 0
        self._lifted = asyncio.Event()

    def produced(self, points: int) -> None:
        """Count a collection of ``points`` into the live rate."""
        self._produced.append((self._clock.monotonic(), points))
        self._points += points
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - self._window
        while self._produced and self._produced[0][0] <= oldest:
            self._points -= self._produced.popleft()[1]

    def rate(self) -> float:
        """Batches a second that may be sent now."""
        self._forget()
        live = self._points / self._window / self._batch_size
        return max(_LEAST_RATE, _TIMES_LIVE * live)

    def lift(self) -> None:
        """End all waiting: the agent stops, and what is not sent may be lost."""
        self._lifted.set()

    async def wait(self) -> None:
        """Return when the next batch may be sent."""
        while not self._lifted.is_set() and (seconds := self._bucket.take(self.rate())) > 0:
            with suppress(TimeoutError):
                async with self._clock.timeout(seconds):
                    await self._lifted.wait()
