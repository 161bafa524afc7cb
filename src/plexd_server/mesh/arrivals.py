"""When a node's reports arrive, and what follows for its silence and its clock. Pure.

A report may come in several pieces, so all that arrives within five seconds is one arrival. The lag
of an arrival is the age of its newest point as it arrives, by the server's clock as that was at the
latest arrival: when the server's clock is set right, all lags are right at once.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd_server.mesh.moment import Moment

_KEPT: Final = 8
_TOGETHER_SECONDS: Final = 5.0
_LEAST_SILENCE_SECONDS: Final = 150.0  # two and a half of an agent's default report intervals
_MOST_SILENCE_SECONDS: Final = 3600.0
_MISSED: Final = 2.5
_AHEAD_SECONDS: Final = 2.0
_STEADY_SECONDS: Final = 75.0
_WATCHED_SECONDS: Final = 90.0
_NEEDED: Final = 3


class Arrival(Struct, frozen=True, gc=False):
    """An arrival ``at`` steady seconds, when the wall clock was ``shift`` before the steady one.

    ``newest`` is the newest stamp that arrived, in epoch seconds of the node's clock.
    """

    at: float
    shift: float
    newest: float


class Rhythm(Struct, frozen=True, gc=False):
    """What follows from the latest arrivals of a node."""

    clock_offset: float
    silent_after: float

    @classmethod
    def of(cls, arrivals: Sequence[Arrival]) -> Self:
        """Return what follows from ``arrivals``, oldest first."""
        return cls(clock_offset(arrivals), silent_after(arrivals))


def with_arrival(
    arrivals: tuple[Arrival, ...], moment: Moment, newest: float
) -> tuple[Arrival, ...]:
    """Return the latest arrivals and this one; what comes right after another is part of it."""
    if arrivals and moment.steady - arrivals[-1].at < _TOGETHER_SECONDS:
        last = arrivals[-1]
        return (*arrivals[:-1], Arrival(last.at, moment.shift, max(last.newest, newest)))
    return (*arrivals, Arrival(moment.steady, moment.shift, newest))[-_KEPT:]


def silent_after(arrivals: Sequence[Arrival]) -> float:
    """Return the seconds without a report after which a node with these arrivals is silent."""
    usual = round(_MISSED * _usual_gap(arrivals), 1)
    return min(max(_LEAST_SILENCE_SECONDS, usual), _MOST_SILENCE_SECONDS)


def clock_offset(arrivals: Sequence[Arrival]) -> float:
    """Return the seconds by which the node's clock is ahead; negative if behind, 0 if not known.

    A point from the future proves a clock that is ahead. A clock that is behind looks like a
    backlog, but the lag of a backlog shrinks as it is delivered.
    """
    if not arrivals:
        return 0.0
    lags = _lags(arrivals)
    latest = lags[-_NEEDED:]
    if min(latest) < -_AHEAD_SECONDS:
        return -min(latest)
    return 0.0 - _behind(arrivals, lags)


def _lags(arrivals: Sequence[Arrival]) -> list[float]:
    shift = arrivals[-1].shift
    return [arrival.at + shift - arrival.newest for arrival in arrivals]


def _behind(arrivals: Sequence[Arrival], lags: Sequence[float]) -> float:
    if len(lags) < _NEEDED or arrivals[-1].at - arrivals[0].at < _WATCHED_SECONDS:
        return 0.0
    is_steady = max(lags) - min(lags) <= _STEADY_SECONDS
    explained = max(_LEAST_SILENCE_SECONDS, 1.5 * _usual_gap(arrivals))
    least = min(lags[-_NEEDED:])
    return least if is_steady and least > explained else 0.0


def _usual_gap(arrivals: Sequence[Arrival]) -> float:
    gaps = [then.at - first.at for first, then in pairwise(arrivals)]
    return median(gaps) if gaps else 0.0
