"""A moment by two clocks: one for showing it, one for what has passed since. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from datetime import datetime

    from plexd.clock import Clock

_MOST_DELAY_SECONDS = 60.0


class Moment(NamedTuple):
    """A moment by the server's wall clock, in epoch seconds, and by its ``steady`` clock.

    The wall clock may be wrong and be set right. Ages are differences of steady seconds.
    """

    wall: float
    steady: float

    @classmethod
    def of(cls, clock: Clock) -> Self:
        """Return the present moment."""
        return cls(clock.now().timestamp(), clock.monotonic())

    @property
    def shift(self) -> float:
        """What the wall clock is before the steady one; it changes when the wall clock is set."""
        return self.wall - self.steady

    def at_arrival(self, received_at: datetime) -> Moment:
        """Return the moment, at most a minute earlier, at which a report arrived."""
        delay = min(max(0.0, self.wall - received_at.timestamp()), _MOST_DELAY_SECONDS)
        return Moment(self.wall - delay, self.steady - delay)

    def when_stored(self, received_at: datetime) -> Moment:
        """Return the moment at which a stored point arrived, perhaps before a restart.

        It is never later than this one: a server whose clock was ahead stored moments that are
        still to come.
        """
        age = max(0.0, self.wall - received_at.timestamp())
        return Moment(self.wall - age, self.steady - age)
