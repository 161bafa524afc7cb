"""How many of a peer's latest probes were lost."""

from __future__ import annotations

__all__ = ["WINDOW_PROBES", "LossWindow"]

WINDOW_PROBES = 20
_MASK = (1 << WINDOW_PROBES) - 1
_UNKNOWN = -1.0


class LossWindow:
    """The fate of the latest 20 probes: five minutes at one every 15 s.

    Only probes that have ended are in it: answered, or lost (no answer in time, refused on the
    way or by this kernel). One in flight, cancelled, or cut off by closing is neither.
    """

    __slots__ = ("_count", "_lost")

    def __init__(self) -> None:
        self._lost = 0  # one bit a probe, the latest lowest
        self._count = 0

    def add(self, *, lost: bool) -> None:
        """Take in the next probe, letting go of the oldest one."""
        if lost or self._lost:
            self._lost = (self._lost << 1 | lost) & _MASK
        if self._count < WINDOW_PROBES:
            self._count += 1

    def percent(self) -> float:
        """0 to 100; -1 as long as no probe has ended."""
        return self._lost.bit_count() * 100 / self._count if self._count else _UNKNOWN
