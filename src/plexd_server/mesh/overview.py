"""The answers of the routes, made from the live mesh. Pure.

A large answer is made in steps of a few milliseconds, between which others work: a generator yields
after each, and returns the answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec reads the annotations
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from plexd.api import SystemStats  # noqa: TC001 -- the same
from plexd_server.mesh.alerts import Alert, finding_alerts, node_alerts
from plexd_server.mesh.classify import SEVERITY
from plexd_server.mesh.links import Link, View  # noqa: TC001 -- the same
from plexd_server.mesh.node import HISTORY_MINUTES, NodeRow
from plexd_server.mesh.status import Status  # noqa: TC001 -- the same

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from plexd_server.mesh.live import LiveMesh, LiveNode, MeshSnapshot
    from plexd_server.mesh.moment import Moment
    from plexd_server.registry import Node

T = TypeVar("T")

SIMULATED: Final = "sim-"
_MOST_LINKS: Final = 20_000
_MOST_BYTES: Final = 16 * 2**20
_HEAD_BYTES: Final = 1024  # what is neither a node nor a link
_MOST_ALERTS: Final = 200
_AT_ONCE: Final = 200


def finished(steps: Generator[None, None, T]) -> T:
    """Return the answer, all steps made at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


class MeshNode(Struct, frozen=True, kw_only=True):
    """A registered node, or a ``foreign`` peer: a node reads it, but it is not registered.

    A ``waiting`` node has never reported, a ``silent`` one owes a report. A ``simulated`` one does
    not exist: it is for a demonstration or a load test.
    """

    node_id: str
    mesh_ip: str
    status: Status
    simulated: bool


class MeshAnswer(Struct, frozen=True, kw_only=True):
    """The links of registered nodes, by their ends, those between two registered nodes first.

    Of more than 20,000, or 16 MiB, the worst are listed, and ``left_out`` counts the others.
    ``skipped`` points were stored, but never read here. ``peers_left_out`` counts the readings of
    peers for which there was no room.
    """

    now: datetime
    nodes: Sequence[MeshNode]
    links: Sequence[Link]
    left_out: int
    skipped: int
    peers_left_out: int


class PeersAnswer(Struct, frozen=True, kw_only=True):
    """The links of a node: its views, and those of its peers that report too.

    The worst 20,000 or 16 MiB are listed, and ``left_out`` counts the others.
    """

    node_id: str
    now: datetime
    links: Sequence[Link]
    left_out: int


class FleetNode(MeshNode, frozen=True, kw_only=True):
    """A node at a glance.

    ``received_at`` is when the last report arrived, and ``silent_after_seconds`` how long after it
    the node is silent. ``cpu_history`` has a percentage for each of the last 60 minutes, the newest
    last, and null where there is no reading. ``peers`` counts its views by state.
    ``clock_offset_seconds`` is positive for a clock that is ahead.
    """

    received_at: datetime | None
    silent_after_seconds: float
    measured_at: datetime | None
    system: SystemStats | None
    cpu_history: Sequence[float | None]
    peers: Mapping[str, int]
    clock_offset_seconds: float


class FleetAnswer(Struct, frozen=True, kw_only=True):
    """All registered nodes, by id, and at most 200 alerts, the worst first."""

    now: datetime
    nodes: Sequence[FleetNode]
    alerts: Sequence[Alert]
    alerts_left_out: int


def mesh(
    live: LiveMesh, snapshot: MeshSnapshot, now: Moment, *, most_bytes: int = _MOST_BYTES
) -> Generator[None, None, MeshAnswer]:
    """Make the answer about the whole mesh in steps; the links in it are encoded already."""
    answer = _Selection(live.roster.names, most_bytes - _HEAD_BYTES)
    for number, node in enumerate(live.roster.nodes):
        answer.add_node(_mesh_node(live, node, now))
        if number % _AT_ONCE == 0:
            yield
    yield from answer.choose(snapshot.links)
    return MeshAnswer(
        now=_shown(now),
        nodes=cast("Sequence[MeshNode]", answer.nodes),
        links=answer.links(),
        left_out=answer.left_out,
        skipped=live.skipped,
        peers_left_out=live.left_out,
    )


def peers(
    live: LiveMesh, node_id: str, snapshot: MeshSnapshot, now: Moment
) -> Generator[None, None, PeersAnswer]:
    """Make the answer about one node's links in steps."""
    known = live.roster.names | {node_id}
    answer = _Selection(known, _MOST_BYTES - _HEAD_BYTES, lists_foreign=False)
    yield from answer.choose(snapshot.links_of.get(node_id, ()))
    return PeersAnswer(
        node_id=node_id, now=_shown(now), links=answer.links(), left_out=answer.left_out
    )


def fleet(
    live: LiveMesh, snapshot: MeshSnapshot, now: Moment
) -> Generator[None, None, FleetAnswer]:
    """Make the answer about all nodes and alerts in steps."""
    nodes: list[FleetNode] = []
    alerts: list[Alert] = []
    for node in live.roster.nodes:
        live_node = live.look_up(node.node_id)
        nodes.append(_fleet_node(node, live_node, snapshot.views.get(node.node_id, ()), now))
        alerts += node_alerts(live_node, now)
        if len(nodes) % _AT_ONCE == 0:
            yield
    silent = frozenset(node.node_id for node in nodes if node.status == "silent")
    known = live.roster.names
    ours = (link for link in snapshot.links if link.a in known or link.b in known)
    for alert in finding_alerts(ours, silent):
        if alert is not None:
            alerts.append(alert)
        if alert is None or len(alerts) % _AT_ONCE == 0:
            yield
    alerts.sort(key=lambda alert: (alert.severity != "bad", alert.node_ids))
    return FleetAnswer(
        now=_shown(now),
        nodes=nodes,
        alerts=alerts[:_MOST_ALERTS],
        alerts_left_out=max(0, len(alerts) - _MOST_ALERTS),
    )


class _Selection:
    """The nodes and links of an answer of bounded size, encoded one by one.

    Links between two of the ``known`` nodes come first, the worst of each kind first. A link of no
    known node is none of ours.
    """

    def __init__(
        self, known: frozenset[str], most_bytes: int, *, lists_foreign: bool = True
    ) -> None:
        self._known = known
        self._left_bytes = most_bytes
        self._lists_foreign = lists_foreign
        self._chosen: dict[int, msgspec.Raw] = {}
        self._foreign: set[str] = set()
        self.nodes: list[msgspec.Raw] = []
        self.left_out = 0

    def add_node(self, node: MeshNode) -> None:
        """Add a node, whatever room there is."""
        self.nodes.append(self._encoded(node))

    def choose(self, links: Sequence[Link]) -> Iterator[None]:
        """Choose among ``links``, in steps."""
        ranked: defaultdict[tuple[bool, int], list[int]] = defaultdict(list)
        for number, link in enumerate(links):
            ours = (link.a in self._known) + (link.b in self._known)
            if ours:
                ranked[ours < 2, -SEVERITY[link.state]].append(number)
            if number % (5 * _AT_ONCE) == 0:
                yield
        for rank in sorted(ranked):
            yield from self._choose(links, ranked[rank])

    def links(self) -> Sequence[Link]:
        """Return the chosen links in their order, encoded."""
        return cast("Sequence[Link]", [self._chosen[number] for number in sorted(self._chosen)])

    def _choose(self, links: Sequence[Link], numbers: Sequence[int]) -> Iterator[None]:
        for position, number in enumerate(numbers):
            if self._left_bytes <= 0 or len(self._chosen) >= _MOST_LINKS:
                self.left_out += len(numbers) - position
                return
            self._add(number, links[number])
            if position % _AT_ONCE == 0:
                yield

    def _add(self, number: int, link: Link) -> None:
        encoded = self._encoded(link)
        if self._left_bytes < 0:
            self.left_out += 1
            return
        self._chosen[number] = encoded
        if self._lists_foreign:
            for end in {link.a, link.b}.difference(self._known, self._foreign):
                self._foreign.add(end)
                self.add_node(_foreign(end))

    def _encoded(self, item: Struct) -> msgspec.Raw:
        encoded = msgspec.json.encode(item)
        self._left_bytes -= len(encoded) + 1
        return msgspec.Raw(encoded)


def _foreign(peer: str) -> MeshNode:
    return MeshNode(
        node_id=peer, mesh_ip="", status="foreign", simulated=peer.startswith(SIMULATED)
    )


def _shown(now: Moment) -> datetime:
    return datetime.fromtimestamp(now.wall, UTC)


def _mesh_node(live: LiveMesh, node: Node, now: Moment) -> MeshNode:
    return MeshNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=live.look_up(node.node_id).presence(now).status,
        simulated=is_simulated(node),
    )


def _fleet_node(node: Node, live_node: LiveNode, views: Sequence[View], now: Moment) -> FleetNode:
    row, seen = live_node.row, live_node.presence(now)
    return FleetNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=seen.status,
        simulated=is_simulated(node),
        received_at=seen.received_at,
        silent_after_seconds=seen.silent_after,
        measured_at=None if row.system is None else datetime.fromtimestamp(row.system[0], UTC),
        system=None if row.system is None else row.system[1],
        cpu_history=_last_hour(row, now),
        peers=Counter(view.state for view in views),
        clock_offset_seconds=round(row.offset, 1),
    )


def _last_hour(row: NodeRow, now: Moment) -> list[float | None]:
    """Return a number for each of the last minutes, by the node's clock."""
    last = int((now.wall + row.offset) // 60)
    found = dict(row.history)
    return [found.get(minute) for minute in range(last - HISTORY_MINUTES + 1, last + 1)]


def is_simulated(node: Node) -> bool:
    """Return whether the node is simulated, by its name or by what it enrolled with."""
    return node.node_id.startswith(SIMULATED) or "simulated" in (node.metadata or {})
