"""Token buckets, one alone or one for each of many keys."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from plexd.clock import Clock

# A rounding error must not cost another wait.
_ALMOST_ONE = 1.0 - 1e-9


class TokenBucket:
    """At most ``burst`` at once, and then as many a second as the caller says."""

    __slots__ = ("_burst", "_clock", "_level", "_since")

    def __init__(self, burst: float, clock: Clock) -> None:
        self._burst = float(burst)
        self._clock = clock
        self._level = self._burst
        self._since = clock.monotonic()

    def take(self, rate: float) -> float:
        """Take one token and return 0, or return the seconds until there is one."""
        seconds = self.wait(rate)
        if seconds == 0:
            self._level -= 1.0
        return seconds

    def wait(self, rate: float) -> float:
        """The seconds until there is a token, without taking it."""
        now = self._clock.monotonic()
        self._level = min(self._burst, self._level + (now - self._since) * rate)
        self._since = now
        return 0.0 if self._level >= _ALMOST_ONE else (1.0 - self._level) / rate


class TokenBuckets:
    """A bucket of ``burst`` tokens, refilled with ``rate`` a second, for each key.

    At most ``size`` keys are remembered. Beyond that, the key that got no token for longest is
    forgotten, and has a full bucket when it comes again.
    """

    def __init__(self, clock: Clock, *, rate: float, burst: float, size: int = 10_000) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._size = size
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """Take one token and return 0, or return the seconds until there is one."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._burst, self._clock)
            if len(self._buckets) > self._size:
                self._buckets.popitem(last=False)
        seconds = bucket.take(self._rate)
        if seconds == 0:
            self._buckets.move_to_end(key)
        return seconds

    def wait(self, key: Hashable) -> float:
        """The seconds until there is a token, without taking it."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(self._rate)
