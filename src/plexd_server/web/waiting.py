"""Requests that wait for their answers, and when those that are refused shall come back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from plexd_server.web.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plexd.clock import Clock

# A node waits half a minute for an answer, and asks again if there is none.
_LONGEST_SECONDS: Final = 25.0
_FIRST_PACE: Final = 1000.0
_LEAST_PACE: Final = 100.0
_BUSY: Final = 256  # with fewer, the pace is that of those who ask
_MORE_TO_SEND: Final = 2
_WINDOW_SECONDS: Final = 1.0
_SOON_SECONDS: Final = 2
_LATE_SECONDS: Final = 300


class Turns:
    """Gives each one that is refused a turn of its own, behind all that wait and all turns given.

    The turns are as far apart as the answers, so those that come back do not come all at once. The
    answers are counted while many wait; ``pace`` is their number a second. Those that are answered
    have more to send, so what waits counts twice, and the rush is taken to last as long again as it
    has lasted. It is over when half as many wait as at its beginning.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._answered = 0
        self._fewest = 0
        self._last = -math.inf
        self._rush: tuple[float, int] | None = None  # since when, and how many waited
        self.pace = _FIRST_PACE

    def answered(self, waiting: int) -> None:
        """Count an answer, after which so many wait."""
        self._answered += 1
        self._fewest = min(self._fewest, waiting)
        if self._rush is not None and 2 * waiting < self._rush[1]:
            self._rush = None
        seconds = self._clock.monotonic() - self._began
        if seconds >= _WINDOW_SECONDS:
            if self._fewest >= _BUSY:
                self.pace = max(_LEAST_PACE, (self.pace + self._answered / seconds) / 2)
            self._began += seconds
            self._answered, self._fewest = 0, waiting

    def give(self, waiting: int) -> Mapping[str, str]:
        """Return the header that says in how many seconds to come back, from 2 to 300.

        When all turns of these five minutes are given, each is given once more.
        """
        now = self._clock.monotonic()
        since, _ = self._rush = self._rush or (now, waiting)
        first = now + max(_MORE_TO_SEND * waiting / self.pace, now - since)
        if self._last > now + _LATE_SECONDS:
            self._last = first
        self._last = max(self._last, first) + 1 / self.pace
        seconds = min(max(math.ceil(self._last - now), _SOON_SECONDS), _LATE_SECONDS)
        return {"Retry-After": str(seconds)}


class Waiting:
    """Places for requests: at most ``most``, and no more than are answered in 25 s.

    One sender has at most as many as it leaves free.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._turns = Turns(clock)
        self._shares = Shares(most)
        self._most = most
        self._count = 0

    def enter(self, sender: str) -> bool:
        """Take a place, or none and return False."""
        self._shares.resize(min(self._most, int(self._turns.pace * _LONGEST_SECONDS)))
        has_entered = self._shares.take(sender)
        self._count += has_entered
        return has_entered

    def leave(self, sender: str) -> None:
        """Give the place back once the request is answered."""
        self._shares.give_back(sender)
        self._count -= 1
        self._turns.answered(self._count)

    def turn(self) -> Mapping[str, str]:
        """Return the header for one that found no place."""
        return self._turns.give(self._count)
