"""When a node's reports arrive, and what follows for its silence and its clock. Pure.

A report may come in several pieces, so all that arrives within five seconds is one arrival. An
arrival has the least lag of its pieces. A lag is the age of a piece's newest point as it arrives.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT: Final = 8
_TOGETHER_SECONDS: Final = 5.0
_LEAST_SILENCE_SECONDS: Final = 150.0  # two and a half of an agent's default report intervals
_MOST_SILENCE_SECONDS: Final = 3600.0
_MISSED: Final = 2.5
_AHEAD_SECONDS: Final = 2.0
_STEADY_SECONDS: Final = 75.0
_WATCHED_SECONDS: Final = 90.0
_NEEDED: Final = 3


class Arrival(Struct, gc=False):
    """An arrival ``at`` epoch seconds by the server's clock; its ``lag`` may be negative."""

    at: float
    lag: float


class Arrivals:
    """The latest few arrivals of one node."""

    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest: list[Arrival] = []

    def add(self, at: float, lag: float) -> None:
        """Note a report; one right after another is a piece of the same arrival."""
        if self.latest and at - self.latest[-1].at < _TOGETHER_SECONDS:
            last = self.latest[-1]
            last.lag = min(last.lag, lag)
            return
        self.latest.append(Arrival(at, lag))
        del self.latest[:-_KEPT]


def silent_after(arrivals: Sequence[Arrival]) -> float:
    """Return the seconds without a report after which a node with these arrivals is silent."""
    return min(max(_LEAST_SILENCE_SECONDS, _MISSED * _usual_gap(arrivals)), _MOST_SILENCE_SECONDS)


def clock_offset(arrivals: Sequence[Arrival]) -> float:
    """Return the seconds by which the node's clock is ahead; negative if behind, 0 if not known.

    A point from the future proves a clock that is ahead. A clock that is behind looks like a
    backlog, but the lag of a backlog shrinks as it is delivered.
    """
    if not arrivals:
        return 0.0
    lags = [arrival.lag for arrival in arrivals[-_NEEDED:]]
    if min(lags) < -_AHEAD_SECONDS:
        return -min(lags)
    return 0.0 - _behind(arrivals, lags)


def _behind(arrivals: Sequence[Arrival], lags: Sequence[float]) -> float:
    if len(lags) < _NEEDED or arrivals[-1].at - arrivals[0].at < _WATCHED_SECONDS:
        return 0.0
    all_lags = [arrival.lag for arrival in arrivals]
    is_steady = max(all_lags) - min(all_lags) <= _STEADY_SECONDS
    explained = max(_LEAST_SILENCE_SECONDS, 1.5 * _usual_gap(arrivals))
    return min(lags) if is_steady and min(lags) > explained else 0.0


def _usual_gap(arrivals: Sequence[Arrival]) -> float:
    gaps = [then.at - first.at for first, then in pairwise(arrivals)]
    return median(gaps) if gaps else 0.0
