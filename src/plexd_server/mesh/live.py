"""The live mesh in memory, fed with what was stored.

Observing a report costs its sender nothing: the report is only queued. `drain` reads the queue, a
bounded number of points at a time; so does `snapshot`. When more comes than is read, the oldest
reports leave the queue unread and are counted: the newest readings are what the live mesh is of,
and all of them are in the store.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from plexd_server.mesh.links import Link, View, join
from plexd_server.mesh.node import LiveNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from plexd.api import MetricPoint
    from plexd_server.registry import Node
    from plexd_server.store import Loss, Report, StoredPoint

_MAX_WAITING: Final = 50_000
_MAX_VIEWS: Final = 250_000
_LEAST_FRESH_SECONDS: Final = 1.0
_VIEWS_A_SECOND: Final = 10_000
_AT_ONCE: Final = 1_000
_NODES_AT_ONCE: Final = 20


class Roster(NamedTuple):
    """The registered ``nodes``, their ``ids`` by key, and the ids and keys of ``revoked`` nodes."""

    nodes: Sequence[Node]
    ids: Mapping[str, str]
    revoked: frozenset[str]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Self:
        """Return the roster of all ``nodes``, revoked ones included."""
        registered: list[Node] = []
        revoked: set[str] = set()
        for node in nodes:
            if node.revoked_at is None:
                registered.append(node)
            else:
                revoked |= {node.node_id, node.public_key}
        ids = {node.public_key: node.node_id for node in registered if node.public_key}
        return cls(registered, ids, frozenset(revoked))


class MeshSnapshot(NamedTuple):
    """All views and links as of ``at``, in epoch seconds; ``links_of`` has them by either end."""

    at: float
    views: Mapping[str, Sequence[View]]
    links: list[Link]
    links_of: dict[str, list[Link]]


class _Unread(NamedTuple):
    node_id: str
    points: Sequence[MetricPoint]
    received_at: float


class LiveMesh:
    """What each node reads of its peers. Bounded: so many points wait and so many views are kept.

    Not safe for threads. Every method is quick but `drain`, which takes about two microseconds a
    point, and `snapshot`, about ten a view; `building` does the same in steps. ``nodes`` has every
    registered node, and every node that reported; ``waiting`` counts the points in the queue, and
    ``skipped`` those that were never read.
    """

    def __init__(self, *, max_waiting: int = _MAX_WAITING, max_views: int = _MAX_VIEWS) -> None:
        self._max_waiting = max_waiting
        self._max_views = max_views
        self._queue: deque[_Unread] = deque()
        self.waiting = 0
        self._views = 0
        self._snapshot: MeshSnapshot | None = None
        self._links: Mapping[str, Link] = {}
        self.nodes: dict[str, LiveNode] = {}
        self.roster = Roster.of(())
        self.skipped = 0

    @property
    def left_out(self) -> int:
        """The number of readings of peers for which there was no room."""
        return sum(node.left_out for node in self.nodes.values())

    def observe(self, report: Report) -> None:
        """Queue a report's points."""
        received_at = report.received_at.timestamp()
        self._queue.append(_Unread(report.node_id, report.points, received_at))
        self.waiting += len(report.points)
        while self.waiting > self._max_waiting and len(self._queue) > 1:
            self.skipped += len(self._dequeue().points)

    def recall(
        self,
        node_id: str,
        points: Sequence[StoredPoint],
        cpu: Iterable[tuple[float, float]],
        now: datetime,
    ) -> None:
        """Read a node's newest stored points, and its past CPU as (epoch seconds, percent).

        They are never newer than what was observed, so they only fill in. The node owes its next
        report from ``now`` on.
        """
        node = self._node(node_id)
        node.recalled_at = now.timestamp()
        for at, percent in cpu:
            node.remember_cpu(at, percent)
        received_at = max(point.received_at for point in points).timestamp()
        self._views += node.read_points(points, received_at, self._max_views - self._views)

    def set_losses(
        self, node_id: str, losses: Sequence[Loss], machines: Sequence[str] = ()
    ) -> None:
        """Keep the latest losses of a node's ledger, also of a node that never reported.

        ``machines`` are the addresses of two or more machines that report as this node.
        """
        self._node(node_id).losses = losses
        self._node(node_id).machines = machines

    def drain(self, most: int | None = None) -> None:
        """Read the queued reports, or about ``most`` points of them."""
        left = self.waiting if most is None else most
        while self._queue and left > 0:
            unread = self._dequeue()
            left -= len(unread.points)
            room = self._max_views - self._views
            node = self._node(unread.node_id)
            self._views += node.read_points(unread.points, unread.received_at, room)

    def update_roster(self, roster: Roster) -> None:
        """Use ``roster`` from now on."""
        if roster != self.roster:
            self.roster = roster
            self._snapshot = None
        for node in roster.nodes:
            self._node(node.node_id)

    def forget(self, node_ids: Iterable[str]) -> None:
        """Delete all that is kept of these nodes."""
        for node_id in node_ids:
            self._views -= len(self.nodes.pop(node_id).peers)
            self._snapshot = None

    def snapshot(self, now: datetime) -> MeshSnapshot:
        """Return all views and links: the same for a second, or longer if the mesh is large."""
        for _ in self.building(now):
            pass
        assert self._snapshot is not None
        return self._snapshot

    def building(self, now: datetime) -> Iterator[None]:
        """Build the snapshot in steps of some milliseconds; in none if there is a fresh one."""
        at = now.timestamp()
        if self._is_fresh(at):
            return
        while self._queue:
            self.drain(_AT_ONCE)
            yield
        views: dict[str, list[View]] = {}
        for number, (node_id, node) in enumerate(list(self.nodes.items())):
            views[node_id] = list(node.views(at, self.roster.ids, self.roster.revoked))
            if number % _NODES_AT_ONCE == 0:
                yield
        snapshot = MeshSnapshot(at, views, [], {})
        for link in join(chain.from_iterable(views.values()), self._links):
            _add(snapshot, link)
            if len(snapshot.links) % _AT_ONCE == 0:
                yield
        self._snapshot = snapshot
        self._links = {link.id: link for link in snapshot.links}

    def _is_fresh(self, at: float) -> bool:
        last = self._snapshot
        if last is None:
            return False
        return 0 <= at - last.at < max(_LEAST_FRESH_SECONDS, self._views / _VIEWS_A_SECOND)

    def _dequeue(self) -> _Unread:
        unread = self._queue.popleft()
        self.waiting -= len(unread.points)
        return unread

    def _node(self, node_id: str) -> LiveNode:
        """Return what is kept of a node; from now on something is."""
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = LiveNode(node_id)
        return node


def _add(snapshot: MeshSnapshot, link: Link) -> None:
    snapshot.links.append(link)
    for end in {link.a, link.b}:
        snapshot.links_of.setdefault(end, []).append(link)
