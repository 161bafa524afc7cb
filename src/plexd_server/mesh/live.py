"""The live mesh in memory, fed with what was stored.

Observing a report costs its sender nothing: the report is only queued. `drain` judges the queue, a
bounded number of points at a time; so does `snapshot`. When more comes than is judged, the oldest
reports of the node that sent the most leave the queue unread and are counted: the newest readings
are what the live mesh is of, and all of them are in the store. The nodes are read in turns.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from msgspec import Struct, field

from plexd.clock import Clock, SystemClock
from plexd.steps import finish
from plexd_server.mesh.alerts import is_bad
from plexd_server.mesh.judge import MOST_FOREIGN, Readings, judge, remember_cpu
from plexd_server.mesh.links import Link, View, joining
from plexd_server.mesh.moment import Moment
from plexd_server.mesh.node import NodeRow
from plexd_server.mesh.peer import FAR_PAST
from plexd_server.mesh.status import Presence, Status, presence, status
from plexd_server.mesh.views import Views

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from plexd.api import MetricPoint
    from plexd_server.mesh.fleet import FleetEntry
    from plexd_server.mesh.overview import Selection
    from plexd_server.registry import Node
    from plexd_server.store import Loss, Report, StoredPoint

_MAX_WAITING: Final = 50_000
_MAX_VIEWS: Final = 250_000
_LEAST_FRESH_SECONDS: Final = 1.0
_VIEWS_A_SECOND: Final = 10_000
POINTS_AT_ONCE: Final = 100
_AT_ONCE: Final = 200
_NO_IDS: Final = frozenset[str]()


class Roster(NamedTuple):
    """The registered ``nodes``, their ``ids`` by key, and the ids and keys of ``revoked`` nodes.

    ``names`` are the ids and the keys of the registered nodes.
    """

    nodes: Sequence[Node]
    ids: Mapping[str, str]
    revoked: frozenset[str]
    names: frozenset[str] = _NO_IDS

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
        names = frozenset(node.node_id for node in registered).union(ids)
        return cls(registered, ids, frozenset(revoked), names)


class MeshSnapshot(NamedTuple):
    """All views and links as of ``moment``; ``links_of`` has links by either end, once asked for.

    ``states`` counts a node's views by state. ``bad`` are the links that an alert may be about.
    ``chosen`` has the links of answers about the whole mesh, by the bytes there was room for.
    """

    moment: Moment
    views: dict[str, Sequence[View]]
    states: dict[str, Mapping[str, int]]
    links: list[Link]
    links_of: dict[str, list[Link]]
    bad: list[Link]
    chosen: dict[int, Selection]


class _Unread(NamedTuple):
    node_id: str
    points: Sequence[MetricPoint]
    moment: Moment


class LiveNode(Struct, gc=False, eq=False):
    """One node: its row, the views made of it, and the latest ``losses`` of its ledger.

    ``machines`` are the addresses of those that report under its identity, if there are several.

    ``recalled_at`` is when it was read from the store, in steady seconds: before that, no report
    could arrive here. ``entry`` is what was last said of it at a glance.
    """

    row: NodeRow
    views: Views = field(default_factory=Views)
    losses: Sequence[Loss] = ()
    machines: Sequence[str] = ()
    recalled_at: float = FAR_PAST
    entry: FleetEntry | None = None

    def presence(self, moment: Moment) -> Presence:
        """Return whether the node reports."""
        return presence(self.row, moment, self.recalled_at)

    def status(self, moment: Moment) -> Status:
        """Return the status alone."""
        return status(self.row, moment, self.recalled_at)


class LiveMesh:
    """What each node reads of its peers. Bounded: so many points wait and so many views are kept.

    Not safe for threads. Every method is quick but `drain`, which takes some microseconds a point,
    and `snapshot`, about ten a view; `building` and `recalling` do the same in steps of a few
    milliseconds. ``nodes`` has every registered node, and every node that reported; ``waiting``
    counts the points in the queue, and ``skipped`` those that were never read. Of each node, at
    most ``max_foreign`` peers are kept that are no registered nodes. ``clock`` says when a report
    arrived. ``is_recalled`` is true once everything was read from the store.
    """

    def __init__(
        self,
        *,
        max_waiting: int = _MAX_WAITING,
        max_views: int = _MAX_VIEWS,
        max_foreign: int = MOST_FOREIGN,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._max_waiting = max_waiting
        self._max_views = max_views
        self._max_foreign = max_foreign
        self._queue: OrderedDict[str, deque[_Unread]] = OrderedDict()  # by node, in turns
        self._waiting: Counter[str] = Counter()
        self.waiting = 0
        self._views = 0
        self._snapshot: MeshSnapshot | None = None
        self._links: Mapping[str, Link] = {}
        self.nodes: dict[str, LiveNode] = {}
        self.roster = Roster.of(())
        self.skipped = 0
        self.is_recalled = False

    @property
    def left_out(self) -> int:
        """The number of readings of peers for which there was no room."""
        return sum(node.row.left_out for node in self.nodes.values())

    def now(self) -> Moment:
        """Return the present moment."""
        return Moment.of(self._clock)

    def look_up(self, node_id: str) -> LiveNode:
        """Return what is kept of a node, which may be nothing."""
        return self.nodes.get(node_id) or LiveNode(NodeRow(node_id=node_id))

    def observe(self, report: Report, moment: Moment | None = None) -> None:
        """Queue the points of a report that was stored, at ``moment``, which is now."""
        arrived = (moment or self.now()).at_arrival(report.received_at)
        node_id, count = report.node_id, len(report.points)
        self._queue.setdefault(node_id, deque()).append(_Unread(node_id, report.points, arrived))
        self._waiting[node_id] += count
        self.waiting += count
        while self.waiting > self._max_waiting and self.waiting > count:
            self.skipped += len(self._take(self._waiting.most_common(1)[0][0]).points)

    def recalling(
        self,
        node_id: str,
        points: Sequence[StoredPoint],
        cpu: Iterable[tuple[float, float]],
        moment: Moment,
    ) -> Iterator[None]:
        """Read a node's newest stored points, and its past CPU as (epoch seconds, percent).

        They are never newer than what was observed, so they only fill in. The node owes its next
        report from ``moment`` on. Does it in steps.
        """
        node = self._node(node_id)
        node.recalled_at = moment.steady
        for at, percent in cpu:
            remember_cpu(node.row, at, percent)
        # By a clock of the server that was ahead, an older one may seem to have come later.
        newest = max(points, key=lambda point: point.timestamp)
        arrived = moment.when_stored(newest.received_at)
        for first in range(0, len(points), POINTS_AT_ONCE):
            piece = points[first : first + POINTS_AT_ONCE]
            self._judge(node, self._readings(piece, arrived, are_recalled=True))
            yield

    def set_losses(
        self, node_id: str, losses: Sequence[Loss], machines: Sequence[str] = ()
    ) -> None:
        """Keep the latest losses of a node's ledger, also of a node that never reported.

        ``machines`` are the addresses of two or more machines that report as this node.
        """
        self._node(node_id).losses = losses
        self._node(node_id).machines = machines

    def drain(self, most: int | None = None) -> None:
        """Read the queued points, or ``most`` of them."""
        left = self.waiting if most is None else most
        while self._queue and left > 0:
            unread = self._take(next(iter(self._queue)), left)
            left -= len(unread.points)
            node = self._node(unread.node_id)
            self._judge(node, self._readings(unread.points, unread.moment))

    def settling(self) -> Generator[None, None, None]:
        """Read all queued points, in steps of some milliseconds."""
        while self._queue:
            self.drain(POINTS_AT_ONCE)
            yield

    def update_roster(self, roster: Roster) -> None:
        """Use ``roster`` from now on."""
        if roster is self.roster:
            return
        self.roster = roster
        self._snapshot = None
        for node in roster.nodes:
            self._node(node.node_id)

    def forget(self, node_ids: Iterable[str]) -> None:
        """Delete all that is kept of these nodes."""
        for node_id in node_ids:
            self._views -= len(self.nodes.pop(node_id).row.peers)
            self._snapshot = None

    def snapshot(self, moment: Moment) -> MeshSnapshot:
        """Return all views and links: the same for a second, or longer if the mesh is large."""
        return finish(self.building(moment))

    def building(self, moment: Moment) -> Generator[None, None, MeshSnapshot]:
        """Build the snapshot in steps of some milliseconds, and return it.

        If there is a fresh one, that is returned. What waits is read first in any case, so that
        every node is known to report. Only one may be under way.
        """
        yield from self.settling()
        if self._snapshot is not None and self._is_fresh(self._snapshot, moment):
            return self._snapshot
        snapshot = MeshSnapshot(moment, {}, {}, [], {}, [], {})
        yield from self._view(snapshot)
        links: dict[str, Link] = {}
        for link in joining(snapshot.views.values(), self._links):
            if link is None:
                yield
            else:
                self._add(snapshot, link)
                links[link.id] = link
        # What only the last one had is given back in steps, as all of it takes a while.
        given_back = _parts_of(self._snapshot)
        self._snapshot, self._links = snapshot, links
        while given_back:
            del given_back[-_AT_ONCE:]
            yield
        return snapshot

    def _view(self, snapshot: MeshSnapshot) -> Iterator[None]:
        """Make the views of all nodes, in steps."""
        left = _AT_ONCE
        for node_id, node in list(self.nodes.items()):
            made: list[View] = []
            for view in node.views.of(
                node.row, snapshot.moment, self.roster.ids, self.roster.revoked
            ):
                made.append(view)
                left -= 1
                if left <= 0:
                    left = _AT_ONCE
                    yield
            snapshot.views[node_id] = tuple(made)
            snapshot.states[node_id] = dict(Counter([view.state for view in made]))
            left -= 1

    def _add(self, snapshot: MeshSnapshot, link: Link) -> None:
        snapshot.links.append(link)
        known = self.roster.names
        if is_bad(link) and (link.a in known or link.b in known):
            snapshot.bad.append(link)

    def _is_fresh(self, last: MeshSnapshot, moment: Moment) -> bool:
        age = moment.steady - last.moment.steady
        return age < max(_LEAST_FRESH_SECONDS, self._views / _VIEWS_A_SECOND)

    def _take(self, node_id: str, most: int = _MAX_WAITING) -> _Unread:
        """Take ``most`` points of the node's oldest report out of the queue; others are next."""
        reports = self._queue[node_id]
        unread = reports.popleft()
        if len(unread.points) > most:
            reports.appendleft(unread._replace(points=unread.points[most:]))
            unread = unread._replace(points=unread.points[:most])
        self._count_taken(node_id, len(unread.points))
        return unread

    def _count_taken(self, node_id: str, count: int) -> None:
        self.waiting -= count
        self._waiting[node_id] -= count
        self._queue.move_to_end(node_id)
        if not self._queue[node_id]:
            del self._queue[node_id], self._waiting[node_id]

    def _readings(
        self,
        points: Sequence[MetricPoint | StoredPoint],
        moment: Moment,
        *,
        are_recalled: bool = False,
    ) -> Readings:
        return Readings(
            points,
            moment,
            self.roster.names,
            self._max_foreign,
            self._max_views - self._views,
            are_recalled,
        )

    def _judge(self, node: LiveNode, readings: Readings) -> None:
        row = judge(node.row, readings)
        self._views += len(row.peers) - len(node.row.peers)
        node.row = row

    def _node(self, node_id: str) -> LiveNode:
        """Return what is kept of a node; from now on something is."""
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = LiveNode(NodeRow(node_id=node_id))
        return node


def _parts_of(snapshot: MeshSnapshot | None) -> list[object]:
    """Return what is many in a snapshot."""
    return [] if snapshot is None else [*snapshot.links, *snapshot.views.values()]
