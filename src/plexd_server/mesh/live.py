"""The live picture in memory, fed with what was stored.

Taking note of a report costs its sender nothing: it is only put in line. What is in line is read
by `settle`, a bounded number of points at a time, and before an answer. When more comes than is
read, the oldest leave the line unread and are counted: the newest readings are what a live picture
is of, and all of them are in the store.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from plexd_server.mesh.links import Link, View, join
from plexd_server.mesh.node import NodeTrack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.registry import Node
    from plexd_server.store import Loss, StoredPoint

__all__ = ["LiveMesh", "Picture", "Roster"]

_MAX_WAITING: Final = 50_000
_MAX_VIEWS: Final = 250_000
_LEAST_FRESH_SECONDS: Final = 1.0
_VIEWS_A_SECOND: Final = 10_000
_AT_ONCE: Final = 1_000
_NODES_AT_ONCE: Final = 20


class _Unread(NamedTuple):
    node_id: str
    points: Sequence[MetricPoint]
    received_at: float


class Picture(NamedTuple):
    """All views and links as of ``at``, in epoch seconds; ``links_of`` has them by either end."""

    at: float
    views: Mapping[str, Sequence[View]]
    links: list[Link]
    links_of: dict[str, list[Link]]


class Roster(NamedTuple):
    """The registered ``nodes``, their ids by public key, and every name of a ``revoked`` node."""

    nodes: Sequence[Node]
    ids: Mapping[str, str]
    revoked: frozenset[str]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Self:
        """The roster of all ``nodes``, revoked ones included."""
        every = list(nodes)
        registered = [node for node in every if node.revoked_at is None]
        ids = {node.public_key: node.node_id for node in registered if node.public_key}
        revoked = [node for node in every if node.revoked_at is not None]
        names = frozenset(name for node in revoked for name in (node.node_id, node.public_key))
        return cls(registered, ids, names)


class LiveMesh:
    """What each node reads of its peers. Bounded: at most so many points wait, so many views stay.

    Not safe for threads; every method is quick but `settle`, which takes about two microseconds
    a point, and `picture`, about ten a view; `drawing` does the same in pieces. ``nodes`` has every
    registered node, and each that reported.
    """

    def __init__(self, *, max_waiting: int = _MAX_WAITING, max_views: int = _MAX_VIEWS) -> None:
        self._max_waiting = max_waiting
        self._max_views = max_views
        self._line: deque[_Unread] = deque()
        self._waiting = 0
        self._views = 0
        self._picture: Picture | None = None
        self._links: Mapping[str, Link] = {}
        self.nodes: dict[str, NodeTrack] = {}
        self.roster = Roster.of(())
        self.skipped = 0

    @property
    def waiting(self) -> int:
        """Points in line."""
        return self._waiting

    @property
    def unseen(self) -> int:
        """Readings of peers for which there was no room."""
        return sum(node.unseen for node in self.nodes.values())

    def observe(self, node_id: str, points: Sequence[MetricPoint], received_at: datetime) -> None:
        """Put a report in line."""
        self._line.append(_Unread(node_id, points, received_at.timestamp()))
        self._waiting += len(points)
        while self._waiting > self._max_waiting and len(self._line) > 1:
            self.skipped += self._leave()

    def recall(
        self,
        node_id: str,
        points: Sequence[StoredPoint],
        cpu: Iterable[tuple[float, float]],
        now: datetime,
    ) -> None:
        """Take in what a store remembers: the newest points, and (epoch seconds, CPU percent).

        It is never newer than what was observed, so it only fills in. The node owes its next report
        from ``now`` on.
        """
        node = self._known(node_id)
        node.recalled_at = now.timestamp()
        for at, percent in cpu:
            node.remember_cpu(at, percent)
        received_at = max(point.received_at for point in points).timestamp()
        self._views += node.take(points, received_at, self._max_views - self._views)

    def set_losses(self, node_id: str, losses: Sequence[Loss]) -> None:
        """Keep the latest losses of a node's ledger, also of a node that never reported."""
        self._known(node_id).losses = losses

    def settle(self, most: int | None = None) -> None:
        """Read what is in line, or about ``most`` points of it."""
        left = self._waiting if most is None else most
        while self._line and left > 0:
            waiting = self._line[0]
            left -= self._leave()
            self._take(waiting)

    def update_roster(self, roster: Roster) -> None:
        """Use ``roster`` from now on."""
        if roster != self.roster:
            self.roster = roster
            self._picture = None
        for node in roster.nodes:
            self._known(node.node_id)

    def forget(self, node_ids: Iterable[str]) -> None:
        """Delete all that is kept of these nodes."""
        for node_id in node_ids:
            self._views -= len(self.nodes.pop(node_id).peers)
            self._picture = None

    def picture(self, now: datetime) -> Picture:
        """All views and links. The same one for a second, longer for a mesh that takes longer."""
        for _ in self.drawing(now):
            pass
        assert self._picture is not None
        return self._picture

    def drawing(self, now: datetime) -> Iterator[None]:
        """What `picture` does, in pieces of some milliseconds; nothing if there is a picture."""
        at = now.timestamp()
        if self._is_fresh(at):
            return
        while self._line:
            self.settle(_AT_ONCE)
            yield
        views: dict[str, list[View]] = {}
        for number, (node_id, node) in enumerate(list(self.nodes.items())):
            views[node_id] = list(node.views(at, self.roster.ids, self.roster.revoked))
            if number % _NODES_AT_ONCE == 0:
                yield
        picture = Picture(at, views, [], {})
        for link in join(chain.from_iterable(views.values()), self._links):
            _add(picture, link)
            if len(picture.links) % _AT_ONCE == 0:
                yield
        self._picture = picture
        self._links = {link.id: link for link in picture.links}

    def _is_fresh(self, at: float) -> bool:
        last = self._picture
        if last is None:
            return False
        return 0 <= at - last.at < max(_LEAST_FRESH_SECONDS, self._views / _VIEWS_A_SECOND)

    def _leave(self) -> int:
        points = len(self._line.popleft().points)
        self._waiting -= points
        return points

    def _take(self, waiting: _Unread) -> None:
        room = self._max_views - self._views
        self._views += self._known(waiting.node_id).take(waiting.points, waiting.received_at, room)

    def _known(self, node_id: str) -> NodeTrack:
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = NodeTrack(node_id)
        return node


def _add(picture: Picture, link: Link) -> None:
    picture.links.append(link)
    for end in {link.a, link.b}:
        picture.links_of.setdefault(end, []).append(link)
