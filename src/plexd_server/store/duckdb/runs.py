"""Runs made of readings, and longer runs of shorter ones: sums over numpy arrays. Pure.

The columns of a run are in `rollups`. Here times are microseconds, and a number that is not there
is NaN. As SQL with windows the same costs two to three times as much CPU.

An interval is the time from one reading to the next, by their stamps. It has no rate if the counter
was reset in it, and if the node's clock was set between its readings: the stamp of one was ahead of
its arrival, by much more or less than the other's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from plexd_server.store.duckdb.rollups import Fields, Level

Array: TypeAlias = "NDArray[Any]"
Columns: TypeAlias = "dict[str, Array]"

# The time from a reading to its arrival varies by about as much.
_STEADY_MICROSECONDS: Final = 60_000_000


def of_readings(fields: Fields, readings: Mapping[str, Array]) -> Columns:
    """Return a run for each reading, in order of series and time.

    Given are ``series``, ``first``, ``first_ahead``, the fields, and the ``place`` in order of
    arrival. A field that is a gauge is a float, with NaN for none.
    """
    order = np.lexsort((readings["place"], readings["first"], readings["series"]))
    readings = {name: values[order] for name, values in readings.items()}
    first, ahead = readings["first"], readings["first_ahead"]
    nothing, none = np.zeros(len(first)), np.full(len(first), np.nan)
    runs: Columns = {
        "series": readings["series"],
        "readings": np.ones(len(first), np.uint32),
        "first": first,
        "last": first,
        "first_ahead": ahead,
        "last_ahead": ahead,
        "longest": np.zeros(len(first), np.int64),
        "until": first,
    }
    for name in fields.gauges:
        value = readings[name]
        known = ~np.isnan(value)
        runs |= {f"{name}_sum": np.where(known, value, 0), f"{name}_count": known}
        runs |= {f"{name}_min": value, f"{name}_max": value}
    for name in fields.counters:
        runs |= {f"{name}_first": readings[name], f"{name}_last": readings[name]}
        runs |= {f"{name}_rise": nothing, f"{name}_time": runs["longest"]}
        runs |= {f"{name}_min": none, f"{name}_max": none}
    return runs


class Intervals:
    """What lies between runs that follow each other, at the place of the later one.

    Attributes:
        passed: its length.
        joins: whether there is one; elsewhere all is 0.
    """

    def __init__(self, runs: Columns, joins: Array) -> None:
        self._runs = runs
        self.joins = joins
        self.passed = np.where(joins, runs["first"] - before(runs["last"]), 0)
        self._is_steady = joins & (self.passed > 0) & self._clock_is_steady()

    def _clock_is_steady(self) -> Array:
        ahead, earlier = self._runs["first_ahead"], before(self._runs["last_ahead"])
        is_small: Array = np.maximum(ahead, earlier) <= _STEADY_MICROSECONDS
        is_alike: Array = np.abs(ahead - earlier) <= _STEADY_MICROSECONDS
        return is_small | is_alike

    def rise(self, name: str) -> tuple[Array, Array]:
        """Return how much a counter rose, and whether that is known."""
        now, earlier = self._runs[f"{name}_first"], before(self._runs[f"{name}_last"])
        is_known = self._is_steady & (now >= earlier)
        return np.where(is_known, now - earlier, 0).astype(np.float64), is_known


def longest_of(passed: Array, runs: Columns, begins: Array) -> tuple[Array, Array]:
    """Return the longest interval of each group, before or within a run, and when it ended."""
    is_before = passed >= runs["longest"]
    longest = np.where(is_before, passed, runs["longest"])
    until = np.where(is_before, runs["first"], runs["until"])
    most = np.maximum.reduceat(longest, begins)
    is_most = longest == most.repeat(np.diff(begins, append=len(longest)))
    latest = np.where(is_most, until, until.min())
    return most, np.maximum.reduceat(latest, begins)


def composed(fields: Fields, level: Level, runs: Columns) -> Columns:
    """Return the runs of each series in each bucket of the level as one, with its ``start``.

    They are in order of series and time; so is the answer.
    """
    series, first = runs["series"], runs["first"]
    if not len(series):
        return {**runs, "start": first}
    start = first - first % level.length
    joins = np.zeros(len(first), np.bool_)
    joins[1:] = (series[1:] == series[:-1]) & (start[1:] == start[:-1])
    begins = np.flatnonzero(~joins)
    intervals = Intervals(runs, joins)
    longest, until = longest_of(intervals.passed, runs, begins)
    ends = np.append(begins[1:], len(first)) - 1
    made = {
        "series": series[begins],
        "start": start[begins],
        "readings": np.add.reduceat(runs["readings"], begins),
        "first": first[begins],
        "last": runs["last"][ends],
        "first_ahead": runs["first_ahead"][begins],
        "last_ahead": runs["last_ahead"][ends],
        "longest": longest,
        "until": until,
    }
    for name in fields.gauges:
        made |= sums(runs, name, begins)
    for name in fields.counters:
        made |= _rises(runs, name, begins, intervals)
    return made


def sums(runs: Columns, name: str, begins: Array) -> Columns:
    """Return what the runs of each group amount to, of a gauge."""
    return {
        f"{name}_sum": np.add.reduceat(runs[f"{name}_sum"], begins),
        f"{name}_count": np.add.reduceat(runs[f"{name}_count"].astype(np.uint32), begins),
        f"{name}_min": np.fmin.reduceat(runs[f"{name}_min"], begins),
        f"{name}_max": np.fmax.reduceat(runs[f"{name}_max"], begins),
    }


def _rises(runs: Columns, name: str, begins: Array, intervals: Intervals) -> Columns:
    """Return what the runs of each group amount to, of a counter, with the intervals in it."""
    rise, is_known = intervals.rise(name)
    rate = divided(rise, intervals.passed, is_known)
    time = np.where(is_known, intervals.passed, 0)
    ends = np.append(begins[1:], len(rise)) - 1
    return {
        f"{name}_first": runs[f"{name}_first"][begins],
        f"{name}_last": runs[f"{name}_last"][ends],
        f"{name}_rise": np.add.reduceat(runs[f"{name}_rise"] + rise, begins),
        f"{name}_time": np.add.reduceat(runs[f"{name}_time"] + time, begins),
        f"{name}_min": np.fmin.reduceat(np.fmin(runs[f"{name}_min"], rate), begins),
        f"{name}_max": np.fmax.reduceat(np.fmax(runs[f"{name}_max"], rate), begins),
    }


def divided(values: Array, by: Array, where: Array) -> Array:
    """Return the quotients, and NaN elsewhere."""
    quotients: Array = np.divide(values, by, out=np.full(len(values), np.nan), where=where)
    return quotients


def before(values: Array) -> Array:
    """Return of each place the value of the one before."""
    moved = np.empty_like(values)
    moved[1:], moved[:1] = values[:-1], values[:1]
    return moved
