"""The newest marks of all nodes, in memory.

Only the writer's thread changes them, and only after a commit.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from plexd_server.store.marks import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    FindMark = Callable[[str, str], Mark | None]

# An epoch lasts as long as the node's spool. A node that begins one with every batch must not fill
# the server's memory.
EPOCHS_IN_MEMORY: Final = 8


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
