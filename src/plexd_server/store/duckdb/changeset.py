"""What one transaction adds to the tables, and the newest marks in memory.

Only the writer's thread changes the marks in memory, and only after a commit.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec.structs import replace

from plexd_server.store.duckdb.queries import LastReport
from plexd_server.store.marks import FOLDED, MARKS_OF_NODE, Mark, Others, Step, advance, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.store.port import Loss, Report

    Key = tuple[str, str]

# An epoch is a life of the agent's process. A node that begins one with every batch must not fill
# the server's memory.
EPOCHS_IN_MEMORY: Final = 8
# Marks beyond the bound are folded so many at once, as it takes a reading of all of them.
_FOLDED_AT_ONCE: Final = 256


class ReportPoints(NamedTuple):
    """The points of one report that are to be stored."""

    node_id: str
    received_at: datetime
    points: Sequence[MetricPoint]


class Changeset(NamedTuple):
    """What the journal's records up to ``record`` add to the tables.

    ``removed`` are keys (node, epoch) of marks that are not kept any more.
    """

    record: int
    points: Sequence[ReportPoints]
    marks: Sequence[Mark]
    losses: Sequence[tuple[str, Loss]]
    removed: Sequence[Key] = ()

    @property
    def weight(self) -> int:
        """Return how many points it counts as; if none counted, the queue had no bound."""
        return max(1, sum(len(report.points) for report in self.points))


class StoredMarks(Protocol):
    """The committed marks that are not in memory."""

    def find(self, node_id: str, epoch: str) -> Mark | None:
        """Return the mark of an epoch, if it has one."""
        ...

    def of_node(self, node_id: str) -> Sequence[Mark]:
        """Return all marks of a node."""
        ...


class MarkCache:
    """The newest mark of each (node, epoch), for the latest few epochs of every node.

    ``known`` are marks in order of ``ordinal``; ``stored`` has those that are no longer cached.
    """

    def __init__(self, known: Iterable[Mark], stored: StoredMarks) -> None:
        self.stored = stored
        self._nodes: dict[str, dict[str, Mark]] = {}
        self._turns: dict[str, tuple[int, str]] = {}
        self._incomplete: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.ordinal = 0
        for mark in known:
            self.put(mark)
            self.counts[mark.node_id] += 1

    def get(self, node_id: str, epoch: str) -> Mark | None:
        """Return the committed mark, if there is one."""
        mark = self._nodes.get(node_id, {}).get(epoch)
        if mark is None and node_id in self._incomplete:
            return self.stored.find(node_id, epoch)
        return mark

    def turn(self, node_id: str) -> tuple[int, str]:
        """Return the node's last turn, and the epoch that moved with it."""
        return self._turns.get(node_id, (0, ""))

    def of_node(self, node_id: str) -> Sequence[Mark]:
        """Return the node's cached marks. May be called on any thread."""
        return list(self._nodes.get(node_id, {}).values())

    def last_report(self, node_id: str) -> LastReport | None:
        """Return a node's last report; None if it never reported. May be called on any thread.

        The last one is that of the mark that was stored last, whatever the clocks say.
        """
        marks = [mark for mark in self.of_node(node_id) if mark.received_at]
        if not marks:
            return None
        last = max(marks, key=lambda mark: mark.ordinal)
        assert last.received_at is not None
        stamps = (mark.newest_stored for mark in marks if mark.newest_stored)
        has_points = any(mark.received for mark in marks)
        return LastReport(last.received_at, max(stamps, default=None), has_points)

    def last_reports(self) -> dict[str, LastReport]:
        """Return the last report of each node. May be called on any thread."""
        found = ((node_id, self.last_report(node_id)) for node_id in list(self._nodes))
        return {node_id: last for node_id, last in found if last is not None}

    def put(self, mark: Mark) -> None:
        """Replace a mark by the committed one; removes the longest unused of too many."""
        epochs = self._nodes.setdefault(mark.node_id, {})
        epochs.pop(mark.epoch, None)
        epochs[mark.epoch] = mark
        self.ordinal = max(self.ordinal, mark.ordinal)
        if mark.turn > self.turn(mark.node_id)[0]:
            self._turns[mark.node_id] = (mark.turn, mark.epoch)
        if len(epochs) > EPOCHS_IN_MEMORY:
            del epochs[next(iter(epochs))]
            self._incomplete.add(mark.node_id)

    def remove(self, node_id: str, epoch: str) -> None:
        """Remove a mark that is not kept any more."""
        self._nodes.get(node_id, {}).pop(epoch, None)


class StagedReports:
    """Reports that are committed together, and the marks after them.

    Nothing in the cache changes before `apply`: if the commit fails, the object is thrown away.
    """

    def __init__(self, cache: MarkCache) -> None:
        self._cache = cache
        self._marks: dict[Key, Mark | None] = {}
        self._turns: dict[str, tuple[int, str]] = {}
        self._to_store: dict[Key, Mark] = {}
        self._added: Counter[str] = Counter()
        self._removed: dict[Key, None] = {}
        self._points: list[ReportPoints] = []
        self._losses: list[tuple[str, Loss]] = []

    def add(self, report: Report) -> Step:
        """Return what ``report`` does after the reports added before it."""
        epoch = report.name.epoch if report.name else ""
        known = self._get(report.node_id, epoch)
        mark = known or Mark(node_id=report.node_id, epoch=epoch)
        step = advance(mark, report, self._others(mark, report))
        if step.must_store:
            self._store(step)
        elif known is not None:
            self._count(step.mark)
        if step.points:
            points = ReportPoints(report.node_id, report.received_at, step.points)
            self._points.append(points)
        self._losses += [(report.node_id, loss) for loss in step.losses]
        return step

    def changeset(self, record: int) -> Changeset:
        """Return what the reports add, up to ``record``; gives the marks their ordinals."""
        marks = [
            replace(mark, ordinal=ordinal)
            for ordinal, mark in enumerate(self._to_store.values(), self._cache.ordinal + 1)
        ]
        self._marks |= {(mark.node_id, mark.epoch): mark for mark in marks}
        return Changeset(record, self._points, marks, self._losses, list(self._removed))

    def apply(self) -> None:
        """Put the marks into the cache, once the reports are committed."""
        for key, mark in self._marks.items():
            if mark is None:
                self._cache.remove(*key)
            else:
                self._cache.put(mark)
        self._cache.counts.update(self._added)

    def _get(self, node_id: str, epoch: str) -> Mark | None:
        key = node_id, epoch
        return self._marks[key] if key in self._marks else self._cache.get(*key)

    def _others(self, mark: Mark, report: Report) -> Others:
        turn, epoch = self._turns.get(report.node_id) or self._cache.turn(report.node_id)
        if mark.began or report.name is None:
            return Others(turn, epoch)
        folded = self._get(report.node_id, FOLDED)
        before = report.after and report.after.epoch
        predecessor = self._get(report.node_id, before) if before else None
        return Others(turn, epoch, folded.floor if folded else None, predecessor)

    def _store(self, step: Step) -> None:
        mark = step.mark
        if mark.turn:
            self._turns[mark.node_id] = (mark.turn, mark.epoch)
        if step.predecessor is not None:
            self._keep(step.predecessor)
        self._keep(mark)
        if self._cache.counts[mark.node_id] + self._added[mark.node_id] > MARKS_OF_NODE:
            self._fold_oldest(mark.node_id)

    def _count(self, mark: Mark) -> None:
        """Keep a mark in memory only; it is stored with the next report that has an effect."""
        key = mark.node_id, mark.epoch
        self._marks[key] = mark
        if key in self._to_store:
            self._to_store[key] = mark

    def _keep(self, mark: Mark) -> None:
        key = mark.node_id, mark.epoch
        if not mark.ordinal and key not in self._to_store:
            self._added[mark.node_id] += 1
        self._marks[key] = mark
        self._to_store.pop(key, None)  # the latest mark goes last
        self._to_store[key] = mark

    def _fold_oldest(self, node_id: str) -> None:
        """Fold the marks that moved longest ago into one."""
        found = {mark.epoch: mark for mark in self._cache.stored.of_node(node_id)}
        found |= {mark.epoch: mark for mark in self._cache.of_node(node_id)}
        for (node, epoch), mark in self._marks.items():
            if node == node_id:
                found.pop(epoch, None)
                found |= {epoch: mark} if mark else {}
        folded = found.pop(FOLDED, Mark(node_id=node_id, epoch=FOLDED))
        found.pop("", None)
        for mark in sorted(found.values(), key=lambda mark: mark.turn)[:_FOLDED_AT_ONCE]:
            folded = fold(folded, mark)
            self._remove(mark)
        self._keep(folded)

    def _remove(self, mark: Mark) -> None:
        key = mark.node_id, mark.epoch
        self._marks[key] = None
        self._to_store.pop(key, None)
        self._removed[key] = None
        self._added[mark.node_id] -= 1
