"""The marks of all nodes in memory, and what a transaction is about to make of them.

The writer's thread changes them, and only after a commit: a draft that fails is thrown away.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from plexd_server.store.marks import Mark, Step, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.store.port import Loss, Report

    Key = tuple[str, str]
    FindMark = Callable[[str, str], Mark | None]

__all__ = ["EPOCHS_IN_MEMORY", "Draft", "Marks"]

# An epoch is as old as the node's spool. A node that makes a new one for every batch must not
# fill the server's memory with them.
EPOCHS_IN_MEMORY: Final = 8


class Marks:
    """The newest mark of each (node, epoch), for the latest few epochs of every node.

    ``known`` are marks in order of ``ordinal``; ``find`` looks up one that was let go.
    """

    def __init__(self, known: Iterable[Mark], find: FindMark) -> None:
        self._find = find
        self._nodes: dict[str, dict[str, Mark]] = {}
        self._crowded: set[str] = set()
        self.ordinal = 0
        for mark in known:
            self.put(mark)

    def get(self, node_id: str, epoch: str) -> Mark:
        """The mark as it is committed; a new epoch begins where the node's last one is."""
        mark = self._nodes.get(node_id, {}).get(epoch)
        if mark is None and node_id in self._crowded:
            mark = self._find(node_id, epoch)
        return mark or self._fresh(node_id, epoch)

    def of_node(self, node_id: str) -> Sequence[Mark]:
        """The node's marks that are in memory. May be called on any thread."""
        return list(self._nodes.get(node_id, {}).values())

    def newest_of(self, node_id: str) -> datetime | None:
        """About when the node's newest point was measured; None if it never reported."""
        marks = self.of_node(node_id)
        stamps = [mark.newest for mark in marks if mark.newest]
        return max(stamps or (mark.received_at for mark in marks if mark.received_at), default=None)

    def seen(self) -> dict[str, datetime]:
        """When each node was heard of last. May be called on any thread."""
        found = ((node_id, self.of_node(node_id)) for node_id in list(self._nodes))
        arrivals = {node: [m.received_at for m in marks if m.received_at] for node, marks in found}
        return {node: max(times) for node, times in arrivals.items() if times}

    def put(self, mark: Mark) -> None:
        """Replace a mark by what was committed; the longest unused one may have to go."""
        epochs = self._nodes.setdefault(mark.node_id, {})
        epochs.pop(mark.epoch, None)
        epochs[mark.epoch] = mark
        self.ordinal = max(self.ordinal, mark.ordinal)
        if len(epochs) > EPOCHS_IN_MEMORY:
            del epochs[next(iter(epochs))]
            self._crowded.add(mark.node_id)

    def _fresh(self, node_id: str, epoch: str) -> Mark:
        mark = Mark(node_id=node_id, epoch=epoch)
        named = [known for known in self._nodes.get(node_id, {}).values() if known.epoch]
        if not named:
            return mark
        last = max(named, key=attrgetter("ordinal"))
        return replace(mark, newest=last.newest, complete_until=last.complete_until)


class Draft:
    """What one transaction adds, report by report."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._changed: dict[Key, Mark] = {}
        self._to_keep: dict[Key, None] = {}
        self.points: list[tuple[Report, Sequence[MetricPoint]]] = []
        self.losses: list[tuple[str, Loss]] = []

    def take(self, report: Report) -> Step:
        """Note what ``report`` does after those before it."""
        key = report.node_id, report.name.epoch if report.name else ""
        step = advance(self._changed.get(key) or self._marks.get(*key), report)
        self._changed[key] = step.mark
        if step.is_to_keep:
            self._to_keep.pop(key, None)  # the latest goes last
            self._to_keep[key] = None
        if step.points:
            self.points.append((report, step.points))
        self.losses += [(report.node_id, loss) for loss in step.losses]
        return step

    def receipts(self) -> Collection[Mark]:
        """The marks to be kept, numbered on from the last."""
        for ordinal, key in enumerate(self._to_keep, self._marks.ordinal + 1):
            self._changed[key] = replace(self._changed[key], ordinal=ordinal)
        return [self._changed[key] for key in self._to_keep]

    def adopt(self) -> None:
        """The transaction is committed: this is what holds from now on."""
        for mark in self._changed.values():
            self._marks.put(mark)
