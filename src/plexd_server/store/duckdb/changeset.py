"""What one transaction adds to the tables, and the newest marks in memory.

Only the writer's thread changes the marks in memory, and only after a commit.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from plexd_server.store.marks import Mark, Step, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.store.port import Loss, Report

    FindMark = Callable[[str, str], Mark | None]

# An epoch lasts as long as the node's spool. A node that begins one with every batch must not fill
# the server's memory.
EPOCHS_IN_MEMORY: Final = 8


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


class MarkCache:
    """The newest mark of each (node, epoch), for the latest few epochs of every node.

    ``known`` are marks in order of ``ordinal``; ``find`` looks up one that is no longer cached.
    """

    def __init__(self, known: Iterable[Mark], find: FindMark) -> None:
        self._find = find
        self._nodes: dict[str, dict[str, Mark]] = {}
        self._incomplete: set[str] = set()
        self.ordinal = 0
        for mark in known:
            self.put(mark)

    def get(self, node_id: str, epoch: str) -> Mark:
        """Return the committed mark; a new epoch begins where the node's last one is."""
        mark = self._nodes.get(node_id, {}).get(epoch)
        if mark is None and node_id in self._incomplete:
            mark = self._find(node_id, epoch)
        return mark or self._first(node_id, epoch)

    def of_node(self, node_id: str) -> Sequence[Mark]:
        """Return the node's cached marks. May be called on any thread."""
        return list(self._nodes.get(node_id, {}).values())

    def newest_of(self, node_id: str) -> datetime | None:
        """Return about when the node's newest point was measured; None if it never reported."""
        marks = self.of_node(node_id)
        stamps = [mark.newest for mark in marks if mark.newest]
        return max(stamps or (mark.received_at for mark in marks if mark.received_at), default=None)

    def last_seen(self) -> dict[str, datetime]:
        """Return when each node last reported. May be called on any thread."""
        found = ((node_id, self.of_node(node_id)) for node_id in list(self._nodes))
        arrivals = {node: [m.received_at for m in marks if m.received_at] for node, marks in found}
        return {node: max(times) for node, times in arrivals.items() if times}

    def put(self, mark: Mark) -> None:
        """Replace a mark by the committed one; removes the longest unused of too many."""
        epochs = self._nodes.setdefault(mark.node_id, {})
        epochs.pop(mark.epoch, None)
        epochs[mark.epoch] = mark
        self.ordinal = max(self.ordinal, mark.ordinal)
        if len(epochs) > EPOCHS_IN_MEMORY:
            del epochs[next(iter(epochs))]
            self._incomplete.add(mark.node_id)

    def _first(self, node_id: str, epoch: str) -> Mark:
        mark = Mark(node_id=node_id, epoch=epoch)
        named = [known for known in self._nodes.get(node_id, {}).values() if known.epoch]
        if not named:
            return mark
        last = max(named, key=attrgetter("ordinal"))
        return replace(mark, newest=last.newest, complete_until=last.complete_until)


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
