"""What one transaction adds to the tables: points, marks and losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from plexd_server.store.marks import Mark, Step, advance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.store.duckdb.mark_cache import MarkCache
    from plexd_server.store.port import Loss, Report


class ReportPoints(NamedTuple):
    """The points of one report that are to be stored."""

    node_id: str
    received_at: datetime
    points: Sequence[MetricPoint]


class Changeset(NamedTuple):
    """What the journal's records up to ``record`` add to the tables."""

    record: int
    points: Sequence[ReportPoints]
    marks: Sequence[Mark]
    losses: Sequence[tuple[str, Loss]]

    @property
    def weight(self) -> int:
        """Return how many points it counts as; if none counted, the queue had no bound."""
        return max(1, sum(len(report.points) for report in self.points))


class StagedReports:
    """Reports that are committed together, and the marks after them.

    Nothing in the cache changes before `apply`: if the commit fails, the object is thrown away.
    """

    def __init__(self, cache: MarkCache) -> None:
        self._cache = cache
        self._marks: dict[tuple[str, str], Mark] = {}
        self._to_store: dict[tuple[str, str], None] = {}
        self._points: list[ReportPoints] = []
        self._losses: list[tuple[str, Loss]] = []

    def add(self, report: Report) -> Step:
        """Return what ``report`` does after the reports added before it."""
        key = report.node_id, report.name.epoch if report.name else ""
        step = advance(self._marks.get(key) or self._cache.get(*key), report)
        self._marks[key] = step.mark
        if step.must_store:
            self._to_store.pop(key, None)  # the latest mark goes last
            self._to_store[key] = None
        if step.points:
            points = ReportPoints(report.node_id, report.received_at, step.points)
            self._points.append(points)
        self._losses += [(report.node_id, loss) for loss in step.losses]
        return step

    def changeset(self, record: int) -> Changeset:
        """Return what the reports add, up to ``record``; gives the marks their ordinals."""
        for ordinal, key in enumerate(self._to_store, self._cache.ordinal + 1):
            self._marks[key] = replace(self._marks[key], ordinal=ordinal)
        marks = [self._marks[key] for key in self._to_store]
        return Changeset(record, self._points, marks, self._losses)

    def apply(self) -> None:
        """Put the marks into the cache, once the reports are committed."""
        for mark in self._marks.values():
            self._cache.put(mark)
