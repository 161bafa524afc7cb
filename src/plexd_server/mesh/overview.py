"""What the routes of the mesh and the fleet answer, put together from the board. Pure."""

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
    from plexd_server.mesh.node import NodeTrack
    from plexd_server.registry import Node

__all__ = [
    "SIMULATED",
    "FleetAnswer",
    "FleetNode",
    "MeshAnswer",
    "MeshNode",
    "PeersAnswer",
    "fleet",
    "mesh",
    "peers",
]

SIMULATED: Final = "sim-"
_MOST_LINKS: Final = 20_000
_MOST_ALERTS: Final = 200

Status = Literal["up", "silent", "waiting", "foreign"]


class MeshNode(Struct, frozen=True, kw_only=True):
    """A node, or a ``foreign`` peer that some node reads and this server does not know.

    ``waiting`` has never reported, ``silent`` owes a report. ``simulated`` ones are made up, for
    a demonstration or a load test.
    """

    node_id: str
    mesh_ip: str
    status: Status
    simulated: bool


class MeshAnswer(Struct, frozen=True, kw_only=True):
    """The links of registered nodes, by their ends; of more than 20,000 the worst.

    ``links_left_out`` counts the others; ``skipped`` points were stored, but not looked at here.
    """

    now: datetime
    nodes: Sequence[MeshNode]
    links: Sequence[Link]
    links_left_out: int
    skipped: int


class PeersAnswer(Struct, frozen=True, kw_only=True):
    """A node's views, and what its peers read of it where they report too."""

    node_id: str
    now: datetime
    links: Sequence[Link]


class FleetNode(Struct, frozen=True, kw_only=True):
    """A node at a glance.

    ``cpu_history`` has the percentages of the last 60 minutes, the newest last, null without a
    reading; ``peers`` counts its views by state; ``clock_offset_seconds`` is positive for a
    clock that is ahead.
    """

    node_id: str
    mesh_ip: str
    status: Status
    simulated: bool
    received_at: datetime | None
    measured_at: datetime | None
    system: SystemStats | None
    cpu_history: Sequence[float | None]
    peers: Mapping[str, int]
    clock_offset_seconds: float


class FleetAnswer(Struct, frozen=True, kw_only=True):
    """All registered nodes, by id, and what somebody should look at, worst first, 200 at most."""

    now: datetime
    nodes: Sequence[FleetNode]
    alerts: Sequence[Alert]
    alerts_left_out: int


def mesh(board: LiveMesh, now: datetime) -> MeshAnswer:
    """The whole mesh as of ``now``."""
    links = _links(board, now)
    shown = _worst(links)
    known = [_mesh_node(board, node, now) for node in board.roster.nodes]
    return MeshAnswer(
        now=now,
        nodes=[*known, *_foreign(board.roster.nodes, shown)],
        links=shown,
        links_left_out=len(links) - len(shown),
        skipped=board.skipped,
    )


def peers(board: LiveMesh, node_id: str, now: datetime) -> PeersAnswer:
    """One node's links as of ``now``."""
    links = board.picture(now).links_of.get(node_id, ())
    return PeersAnswer(node_id=node_id, now=now, links=links)


def fleet(board: LiveMesh, now: datetime) -> FleetAnswer:
    """All nodes as of ``now``."""
    links = _links(board, now)
    views = board.picture(now).views
    at = now.timestamp()
    registered = board.roster.nodes
    tracks = [board.nodes[node.node_id] for node in registered]
    silent = frozenset(track.node_id for track in tracks if silent_for(track, at) is not None)
    alerts = [alert for track in tracks for alert in node_alerts(track, at)]
    alerts += link_alerts(links, silent)
    alerts.sort(key=lambda alert: (alert.severity != "bad", alert.node_ids))
    return FleetAnswer(
        now=now,
        nodes=[
            _fleet_node(node, track, views.get(node.node_id, ()), at)
            for node, track in zip(registered, tracks, strict=True)
        ],
        alerts=alerts[:_MOST_ALERTS],
        alerts_left_out=max(0, len(alerts) - _MOST_ALERTS),
    )


def _links(board: LiveMesh, now: datetime) -> list[Link]:
    """Those that at least one registered node reads."""
    known = {node.node_id for node in board.roster.nodes}
    return [link for link in board.picture(now).links if link.a in known or link.b in known]


def _worst(links: list[Link]) -> list[Link]:
    if len(links) <= _MOST_LINKS:
        return links
    worst = sorted(links, key=lambda link: -SEVERITY[link.state])[:_MOST_LINKS]
    return sorted(worst, key=lambda link: (link.a, link.b))


def _foreign(registered: Iterable[Node], links: Iterable[Link]) -> list[MeshNode]:
    known = {node.node_id for node in registered}
    strange = {end for link in links for end in (link.a, link.b)} - known
    return [
        MeshNode(node_id=peer, mesh_ip="", status="foreign", simulated=peer.startswith(SIMULATED))
        for peer in sorted(strange)
    ]


def _mesh_node(board: LiveMesh, node: Node, now: datetime) -> MeshNode:
    return MeshNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=_status(board.nodes[node.node_id], now.timestamp()),
        simulated=is_simulated(node),
    )


def _fleet_node(node: Node, track: NodeTrack, views: Iterable[View], at: float) -> FleetNode:
    received_at, system = track.received_at, track.system
    return FleetNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=_status(track, at),
        simulated=is_simulated(node),
        received_at=None if received_at is None else datetime.fromtimestamp(received_at, UTC),
        measured_at=None if system is None else datetime.fromtimestamp(system[0], UTC),
        system=None if system is None else system[1],
        cpu_history=_last_hour(track, at),
        peers=Counter(view.state for view in views),
        clock_offset_seconds=round(track.offset, 1),
    )


def _status(track: NodeTrack, at: float) -> Status:
    if track.received_at is None:
        return "waiting"
    return "up" if silent_for(track, at) is None else "silent"


def _last_hour(track: NodeTrack, at: float) -> list[float | None]:
    """One number a minute, in the node's own minutes."""
    last = int((at + track.offset) // 60)
    found = dict(track.history)
    return [found.get(minute) for minute in range(last - HISTORY_MINUTES + 1, last + 1)]


def is_simulated(node: Node) -> bool:
    """Whether the node says, by its name or as it enrolled, that it is made up."""
    return node.node_id.startswith(SIMULATED) or "simulated" in (node.metadata or {})
