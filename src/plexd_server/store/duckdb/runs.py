"""Runs made of readings, and longer runs of shorter ones: sums over numpy arrays. Pure.

The columns of a run are in `rollups`. Here times are microseconds, and a number that is not there
is NaN. As SQL with windows the same costs three times as much CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from plexd_server.store.duckdb.rollups import Level, counters, gauges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Columns: TypeAlias = "dict[str, Array]"

# The time from a reading to its arrival varies by about as much.
STEADY_MICROSECONDS: Final = 60_000_000


def of_readings(group: str, readings: Mapping[str, Array]) -> Columns:
    """Return a run for each reading, of which ``series, first, first_ahead`` and fields are given.

    A field that is a gauge is a float, with NaN for none.
    """
    first, ahead = readings["first"], readings["first_ahead"]
    nothing, none = np.zeros(len(first)), np.full(len(first), np.nan)
    runs: Columns = {
        "series": readings["series"],
        "readings": np.ones(len(first), np.uint32),
        **{"first": first, "last": first, "first_ahead": ahead, "last_ahead": ahead},
        **{"longest": np.zeros(len(first), np.int64), "until": first},
    }
    for name in gauges(group):
        value = readings[name]
        known = ~np.isnan(value)
        runs |= {f"{name}_sum": np.where(known, value, 0), f"{name}_count": known}
        runs |= {f"{name}_min": value, f"{name}_max": value}
    for name in counters(group):
        runs |= {f"{name}_first": readings[name], f"{name}_last": readings[name]}
        runs |= {f"{name}_rise": nothing, f"{name}_time": runs["longest"]}
        runs |= {f"{name}_min": none, f"{name}_max": none}
    return runs


def composed(group: str, level: Level, runs: Columns) -> Columns:
    """Return the runs of each series in each bucket of the level as one, with its ``start``.

    They are in order of series and time; so is the answer.
    """
    if not len(runs["series"]):
        return {**runs, "start": runs["first"]}
    return _Composition(level, runs).columns(group)


class _Composition:
    """Runs in order, cut into groups; what lies between two of a group is an interval."""

    def __init__(self, level: Level, runs: Columns) -> None:
        self._runs = runs
        series, first, last = runs["series"], runs["first"], runs["last"]
        start = first - first % level.length
        joins = np.zeros(len(first), np.bool_)
        joins[1:] = (series[1:] == series[:-1]) & (start[1:] == start[:-1])
        self._begins = np.flatnonzero(~joins)
        self._ends = np.append(self._begins[1:], len(first)) - 1
        self._start = start[self._begins]
        self._passed = np.where(joins, first - _before(last), 0)
        self._is_steady = joins & (self._passed > 0) & self._clock_is_steady()

    def _clock_is_steady(self) -> Array:
        ahead, before = self._runs["first_ahead"], _before(self._runs["last_ahead"])
        is_small = np.maximum(ahead, before) <= STEADY_MICROSECONDS
        return is_small | (np.abs(ahead - before) <= STEADY_MICROSECONDS)

    def columns(self, group: str) -> Columns:
        runs = self._runs
        made = {
            "series": runs["series"][self._begins],
            "start": self._start,
            "readings": self._sum(runs["readings"]),
            "first": runs["first"][self._begins],
            "last": runs["last"][self._ends],
            "first_ahead": runs["first_ahead"][self._begins],
            "last_ahead": runs["last_ahead"][self._ends],
            **self._longest(),
        }
        for name in gauges(group):
            made |= self._gauge(name)
        for name in counters(group):
            made |= self._counter(name)
        return made

    def _longest(self) -> Columns:
        runs, passed = self._runs, self._passed
        is_between = passed >= runs["longest"]
        longest = np.where(is_between, passed, runs["longest"])
        until = np.where(is_between, runs["first"], runs["until"])
        most = np.maximum.reduceat(longest, self._begins)
        is_most = longest == most.repeat(self._ends - self._begins + 1)
        latest = np.where(is_most, until, until.min())
        return {"longest": most, "until": np.maximum.reduceat(latest, self._begins)}

    def _gauge(self, name: str) -> Columns:
        runs = self._runs
        return {
            f"{name}_sum": self._sum(runs[f"{name}_sum"]),
            f"{name}_count": self._sum(runs[f"{name}_count"].astype(np.uint32)),
            f"{name}_min": np.fmin.reduceat(runs[f"{name}_min"], self._begins),
            f"{name}_max": np.fmax.reduceat(runs[f"{name}_max"], self._begins),
        }

    def _counter(self, name: str) -> Columns:
        runs = self._runs
        first, before = runs[f"{name}_first"], _before(runs[f"{name}_last"])
        has_rate = self._is_steady & (first >= before)
        rise = np.where(has_rate, first - before, 0).astype(np.float64)
        rate = np.full(len(first), np.nan)
        np.divide(rise, self._passed, out=rate, where=has_rate)
        return {
            f"{name}_first": first[self._begins],
            f"{name}_last": runs[f"{name}_last"][self._ends],
            f"{name}_rise": self._sum(runs[f"{name}_rise"] + rise),
            f"{name}_time": self._sum(runs[f"{name}_time"] + np.where(has_rate, self._passed, 0)),
            f"{name}_min": np.fmin.reduceat(np.fmin(runs[f"{name}_min"], rate), self._begins),
            f"{name}_max": np.fmax.reduceat(np.fmax(runs[f"{name}_max"], rate), self._begins),
        }

    def _sum(self, values: Array) -> Array:
        total: Array = np.add.reduceat(values, self._begins)
        return total


def _before(values: Array) -> Array:
    """Return of each place the value of the one before."""
    moved = np.empty_like(values)
    moved[1:] = values[:-1]
    moved[:1] = values[:1]
    return moved
