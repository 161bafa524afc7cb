"""The newest marks, in memory: what the front needs to know of every node before it answers.

An epoch is a life of the agent's process. A node that begins one with every batch must not fill the
server's memory, so only the latest few marks of a node are whole. Of each other one there are eight
bytes, enough to know that an epoch is new; if it is an old one, the tables have its mark, or will:
until then it is kept here. The bytes depend on a salt, so that no node can choose two epochs that
have them in common.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec import Struct

from plexd_server.store.marks import Mark  # noqa: TC001 -- msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    Key = tuple[str, str]

EPOCHS_IN_MEMORY: Final = 8
_DIGITS: Final = 16  # hexadecimal; what fits a number of 64 bits


class LastReport(NamedTuple):
    """When a node's last report arrived, and the newest stamp of its stored points, if known.

    ``has_points``: whether any of its points was ever stored.
    """

    arrived: datetime
    newest: datetime | None
    has_points: bool = True


class StoredMarks(Protocol):
    """The marks in the tables."""

    def find(self, node_id: str, epoch: str) -> Mark | None:
        """Return the mark of an epoch, if it has one."""
        ...

    def of_node(self, node_id: str) -> Sequence[Mark]:
        """Return all marks of a node."""
        ...


class KnownMarks(Struct, frozen=True):
    """The marks that a start begins with.

    Attributes:
        latest: the latest few of each node, in order of ``ordinal``.
        others: the other epochs of each node that has more, each shortened with ``salt``.
        salt: what nobody outside knows.
    """

    latest: list[Mark] = []
    others: dict[str, list[int]] = {}
    salt: str = ""


class MarkCache:
    """The newest mark of each (node, epoch); ``stored`` has those that are not whole in memory.

    Only one thread changes it.
    """

    def __init__(self, known: KnownMarks, stored: StoredMarks) -> None:
        self.stored = stored
        self._salt = known.salt
        self._nodes: dict[str, dict[str, Mark]] = {}
        self._turns: dict[str, tuple[int, str]] = {}
        self._others = {node_id: array("Q", found) for node_id, found in known.others.items()}
        self._leaving: deque[tuple[int, Key]] = deque()
        self._left: dict[Key, tuple[int, Mark | None]] = {}  # what the tables do not have yet
        self.ordinal = 0
        for mark in known.latest:
            self.put(mark, 0)

    def get(self, node_id: str, epoch: str) -> Mark | None:
        """Return the committed mark, if there is one."""
        mark = self._nodes.get(node_id, {}).get(epoch)
        if mark is None and self._is_shortened(node_id, epoch):
            left = self._left.get((node_id, epoch))
            return self.stored.find(node_id, epoch) if left is None else left[1]
        return mark

    def count(self, node_id: str) -> int:
        """Return how many marks a node has."""
        return len(self._nodes.get(node_id, ())) + len(self._others.get(node_id, ()))

    def turn(self, node_id: str) -> tuple[int, str]:
        """Return the node's last turn, and the epoch that moved with it."""
        return self._turns.get(node_id, (0, ""))

    def of_node(self, node_id: str) -> list[Mark]:
        """Return the node's marks that are whole. May be called on any thread."""
        return list(self._nodes.get(node_id, {}).values())

    def all_of_node(self, node_id: str) -> dict[str, Mark]:
        """Return all committed marks of a node, by epoch."""
        stored = {mark.epoch: mark for mark in self.stored.of_node(node_id)}
        for (node, epoch), (_, mark) in self._left.items():
            if node == node_id:
                stored.pop(epoch, None)
                stored |= {epoch: mark} if mark else {}
        return stored | self._nodes.get(node_id, {})

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

    def put(self, mark: Mark, record: int) -> None:
        """Replace a mark by the one of a record; of too many, the longest unused is shortened."""
        epochs = self._nodes.setdefault(mark.node_id, {})
        if epochs.pop(mark.epoch, None) is None:
            self._forget(mark.node_id, mark.epoch)
        epochs[mark.epoch] = mark
        self.ordinal = max(self.ordinal, mark.ordinal)
        if mark.turn > self.turn(mark.node_id)[0]:
            self._turns[mark.node_id] = (mark.turn, mark.epoch)
        if len(epochs) > EPOCHS_IN_MEMORY:
            self._shorten(epochs.pop(next(iter(epochs))), record)

    def _shorten(self, mark: Mark, record: int) -> None:
        others = self._others.setdefault(mark.node_id, array("Q"))
        others.append(self._short(mark.epoch))
        self._leave((mark.node_id, mark.epoch), mark, record)

    def _leave(self, key: Key, mark: Mark | None, record: int) -> None:
        self._leaving.append((record, key))
        self._left[key] = record, mark

    def settle(self, record: int) -> None:
        """Drop what the tables have with the records up to this one; it may have left again."""
        while self._leaving and self._leaving[0][0] <= record:
            _, key = self._leaving.popleft()
            if key in self._left and self._left[key][0] <= record:
                del self._left[key]

    def remove(self, node_id: str, epoch: str, record: int) -> None:
        """Remove a mark that is not kept any more; the tables have it until this record."""
        if self._nodes.get(node_id, {}).pop(epoch, None) is None:
            self._forget(node_id, epoch)
        self._leave((node_id, epoch), None, record)

    def _forget(self, node_id: str, epoch: str) -> None:
        self._left.pop((node_id, epoch), None)
        if self._is_shortened(node_id, epoch):
            self._others[node_id].remove(self._short(epoch))

    def _is_shortened(self, node_id: str, epoch: str) -> bool:
        others = self._others.get(node_id)
        return others is not None and self._short(epoch) in others

    def _short(self, epoch: str) -> int:
        return shortened(epoch, self._salt)


def shortened(epoch: str, salt: str) -> int:
    """Return 64 bits of a digest, as the tables make them (`queries.read_known_marks`)."""
    return int(
        hashlib.md5((salt + epoch).encode(), usedforsecurity=False).hexdigest()[:_DIGITS], 16
    )
