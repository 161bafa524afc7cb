"""Runs folded into the buckets of a series. Pure.

In a bucket, the rate of a counter is how much it rose there, divided by the time in which that is
known: an interval that lies in several buckets gives each its share. An interval from the start of
a bucket to the start of the next one counts where it ends, and so does one that ends at the start
of a bucket without any other. The least and the most are those of the intervals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from plexd_server.store.duckdb.runs import Intervals, divided, longest_of, sums

if TYPE_CHECKING:
    from plexd_server.store.duckdb.runs import Array, Columns

# A Monday: buckets of a week begin on one.
_ORIGIN_MICROSECONDS: Final = 946_857_600_000_000
_PER_SECOND: Final = 1e6


class Buckets:
    """The buckets of ``step`` microseconds of at least one of ``runs``, which are in order of time.

    Runs before ``since`` are only looked back at.

    Attributes:
        start: when each begins.
        readings, intervals: how many are in it; an interval is in the bucket in which it ends.
        total: the sum of those intervals.
        longest, until: the longest of them, and when it ended.
    """

    def __init__(self, runs: Columns, step: int, since: int) -> None:
        joins = np.ones(len(runs["first"]), np.bool_)
        joins[:1] = False
        self._between = Intervals(runs, joins)
        skipped = int(np.searchsorted(runs["first"], since))
        self._kept = slice(skipped, None)
        self._runs = runs = {name: values[skipped:] for name, values in runs.items()}
        self._step = step
        first = runs["first"]
        bucket = first - (first - _ORIGIN_MICROSECONDS) % step
        self._begins = np.flatnonzero(np.diff(bucket, prepend=bucket[:1] - 1))
        self.start = bucket[self._begins]
        self._share(bucket)
        self._count()

    def _share(self, bucket: Array) -> None:
        """Find how much of each interval lies in the bucket in which it ends.

        Of the one that enters a bucket, the rest lies in the bucket before.
        """
        first, passed = self._runs["first"], self._between.passed[self._kept]
        came_from = first - passed
        is_whole = (came_from >= bucket) | ((first == bucket) & (passed == self._step))
        self._passed = passed
        self._here = np.where(is_whole, passed, first - bucket)
        self._enters = (~is_whole & (self._here < passed))[self._begins]
        rest = self.start[:-1] + self._step - came_from[self._begins][1:]
        self._rest = np.append(np.maximum(rest, 0), 0)

    def _count(self) -> None:
        runs, joins = self._runs, self._between.joins[self._kept]
        readings = runs["readings"].astype(np.int64)
        self.readings = self._sum(readings)
        self.intervals = self._sum(readings - 1 + joins)
        self.total = self._sum(self._passed + runs["last"] - runs["first"])
        self.longest, self.until = longest_of(self._passed, runs, self._begins)

    def gauge(self, name: str) -> tuple[Array, Array, Array]:
        """Return the mean, the least and the most of a field."""
        found = sums(self._runs, name, self._begins)
        count, least, most = (found[f"{name}_{of}"] for of in ("count", "min", "max"))
        mean = divided(found[f"{name}_sum"], count, count > 0)
        return np.clip(mean, least, most), least, most  # also after rounding

    def rate(self, name: str) -> tuple[Array, Array, Array]:
        """Return the mean, the least and the most of a counter's change per second.

        ``leaving`` is the rate of the interval that enters the next bucket.
        """
        runs, passed = self._runs, self._passed
        rise, is_known = (values[self._kept] for values in self._between.rise(name))
        rate = divided(rise, passed, is_known)
        entering = np.where(self._enters, rate[self._begins], np.nan)
        leaving = np.append(entering[1:], np.nan)
        rest = np.where(np.isnan(leaving), 0, self._rest)
        share = divided(rise * self._here, passed, is_known)
        risen = self._sum(np.nan_to_num(share) + runs[f"{name}_rise"])
        time = self._sum(np.where(is_known, self._here, 0) + runs[f"{name}_time"]) + rest
        least = np.fmin(self._fold(np.fmin, rate, f"{name}_min"), leaving)
        most = np.fmax(self._fold(np.fmax, rate, f"{name}_max"), leaving)
        mean = divided(risen + np.nan_to_num(leaving) * rest, time, time > 0)
        mean = np.where(time > 0, np.clip(mean, least, most), entering)
        return mean * _PER_SECOND, least * _PER_SECOND, most * _PER_SECOND

    def _fold(self, fold: np.ufunc, rate: Array, name: str) -> Array:
        found: Array = fold.reduceat(fold(rate, self._runs[name]), self._begins)
        return found

    def _sum(self, values: Array) -> Array:
        total: Array = np.add.reduceat(values, self._begins)
        return total
