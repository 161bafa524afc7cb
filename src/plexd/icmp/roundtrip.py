"""From clock readings to a round trip that neither a busy process nor a stepped clock can spoil.

The kernel stamps each answer as it arrives, with the wall clock; the probe's own time is read
from the monotonic clock. The offset between the two (wall minus monotonic), sampled after the
answer was read, brings the stamp over to the monotonic side:

    round trip = stamp - offset - sent

so that the time the answer waited to be read does not count. If the wall clock was stepped since
the probe was sent, the offset has changed, and a stamp from before the step is off by the step.
Then, and whenever the result is not between 1 ns and the time on the monotonic clock until the
answer was read, that time is the round trip: an upper bound, never less than the truth.
"""

from __future__ import annotations

import time

_MORE_TRIES = 2
_CLOSE_NANO = 2_000
_JITTER_NANO = 100_000
_SLEW = 1_000  # adjtimex(2) corrects by 500 ppm at most; twice that is one part in a thousand


def sample_clocks() -> tuple[int, int]:
    """Return the offset (wall clock minus monotonic) and the monotonic clock, in nanoseconds.

    The wall clock is read between two readings of the other; if the process was interrupted in
    there, it tries again, three times at most.
    """
    before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    more = _MORE_TRIES
    while after - before >= _CLOSE_NANO and more:
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        more -= 1
    return wall - (before + after) // 2, after


def round_trip(sent: int, read: int, stamp: int, offset_then: int, offset: int) -> tuple[int, bool]:
    """Return nanoseconds, at least 1, and whether the wall clock was stepped meanwhile.

    ``sent`` and ``read`` are monotonic, ``stamp`` is the kernel's wall clock time or 0 if it gave
    none, ``offset_then`` and ``offset`` are those at the sending and after the reading.
    """
    total = read - sent or 1
    stepped = abs(offset - offset_then) > _JITTER_NANO + total // _SLEW
    found = stamp - offset - sent
    if stepped or not stamp or not 0 < found <= total:
        return total, stepped
    return found, False
