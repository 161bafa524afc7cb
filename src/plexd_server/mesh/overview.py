"""The answers of the routes, made from the live mesh. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec reads the annotations
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from plexd.api import SystemStats  # noqa: TC001 -- the same
from plexd_server.mesh.alerts import Alert, link_alerts, node_alerts, silent_for
from plexd_server.mesh.classify import SEVERITY
from plexd_server.mesh.links import Link, View  # noqa: TC001 -- the same
from plexd_server.mesh.node import HISTORY_MINUTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd_server.mesh.live import LiveMesh
    from plexd_server.mesh.node import LiveNode
    from plexd_server.registry import Node

SIMULATED: Final = "sim-"
_MOST_LINKS: Final = 20_000
_MOST_ALERTS: Final = 200

Status = Literal["up", "silent", "waiting", "foreign"]


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
    """The links of registered nodes, by their ends; of more than 20,000 the worst.

    ``links_left_out`` counts the others. ``skipped`` points were stored, but never read here.
    """

    now: datetime
    nodes: Sequence[MeshNode]
    links: Sequence[Link]
    links_left_out: int
    skipped: int


class PeersAnswer(Struct, frozen=True, kw_only=True):
    """The links of a node: its views, and those of its peers that report too."""

    node_id: str
    now: datetime
    links: Sequence[Link]


class FleetNode(MeshNode, frozen=True, kw_only=True):
    """A node at a glance.

    ``cpu_history`` has a percentage for each of the last 60 minutes, the newest last, and null
    where there is no reading. ``peers`` counts its views by state. ``clock_offset_seconds`` is
    positive for a clock that is ahead.
    """

    received_at: datetime | None
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


def mesh(live: LiveMesh, now: datetime) -> MeshAnswer:
    """Return the whole mesh as of ``now``."""
    links = _links(live, now)
    listed = _worst(links)
    known = [_mesh_node(live, node, now) for node in live.roster.nodes]
    return MeshAnswer(
        now=now,
        nodes=[*known, *_foreign(live.roster.nodes, listed)],
        links=listed,
        links_left_out=len(links) - len(listed),
        skipped=live.skipped,
    )


def peers(live: LiveMesh, node_id: str, now: datetime) -> PeersAnswer:
    """Return one node's links as of ``now``."""
    links = live.snapshot(now).links_of.get(node_id, ())
    return PeersAnswer(node_id=node_id, now=now, links=links)


def fleet(live: LiveMesh, now: datetime) -> FleetAnswer:
    """Return all nodes and alerts as of ``now``."""
    links = _links(live, now)
    views = live.snapshot(now).views
    at = now.timestamp()
    registered = live.roster.nodes
    live_nodes = [live.nodes[node.node_id] for node in registered]
    silent = frozenset(
        live_node.node_id for live_node in live_nodes if silent_for(live_node, at) is not None
    )
    alerts = [alert for live_node in live_nodes for alert in node_alerts(live_node, at)]
    alerts += link_alerts(links, silent)
    alerts.sort(key=lambda alert: (alert.severity != "bad", alert.node_ids))
    return FleetAnswer(
        now=now,
        nodes=[
            _fleet_node(node, live_node, views.get(node.node_id, ()), at)
            for node, live_node in zip(registered, live_nodes, strict=True)
        ],
        alerts=alerts[:_MOST_ALERTS],
        alerts_left_out=max(0, len(alerts) - _MOST_ALERTS),
    )


def _links(live: LiveMesh, now: datetime) -> list[Link]:
    """Return the links of which at least one end is registered."""
    known = {node.node_id for node in live.roster.nodes}
    return [link for link in live.snapshot(now).links if link.a in known or link.b in known]


def _worst(links: list[Link]) -> list[Link]:
    if len(links) <= _MOST_LINKS:
        return links
    worst = sorted(links, key=lambda link: -SEVERITY[link.state])[:_MOST_LINKS]
    return sorted(worst, key=lambda link: (link.a, link.b))


def _foreign(registered: Iterable[Node], links: Iterable[Link]) -> list[MeshNode]:
    known = {node.node_id for node in registered}
    foreign = {end for link in links for end in (link.a, link.b)} - known
    return [
        MeshNode(node_id=peer, mesh_ip="", status="foreign", simulated=peer.startswith(SIMULATED))
        for peer in sorted(foreign)
    ]


def _mesh_node(live: LiveMesh, node: Node, now: datetime) -> MeshNode:
    return MeshNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=_status(live.nodes[node.node_id], now.timestamp()),
        simulated=is_simulated(node),
    )


def _fleet_node(node: Node, live_node: LiveNode, views: Iterable[View], at: float) -> FleetNode:
    received_at, system = live_node.received_at, live_node.system
    return FleetNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=_status(live_node, at),
        simulated=is_simulated(node),
        received_at=None if received_at is None else datetime.fromtimestamp(received_at, UTC),
        measured_at=None if system is None else datetime.fromtimestamp(system[0], UTC),
        system=None if system is None else system[1],
        cpu_history=_last_hour(live_node, at),
        peers=Counter(view.state for view in views),
        clock_offset_seconds=round(live_node.offset, 1),
    )


def _status(live_node: LiveNode, at: float) -> Status:
    if live_node.received_at is None:
        return "waiting"
    return "up" if silent_for(live_node, at) is None else "silent"


def _last_hour(live_node: LiveNode, at: float) -> list[float | None]:
    """Return a number for each of the last minutes, by the node's clock."""
    last = int((at + live_node.offset) // 60)
    found = dict(live_node.history)
    return [found.get(minute) for minute in range(last - HISTORY_MINUTES + 1, last + 1)]


def is_simulated(node: Node) -> bool:
    """Return whether the node is simulated, by its name or by what it enrolled with."""
    return node.node_id.startswith(SIMULATED) or "simulated" in (node.metadata or {})
