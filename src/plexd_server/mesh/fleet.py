"""The answer about all nodes at a glance, with what the operator should look at.

It is made in steps of a few milliseconds, as the others are (overview.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec reads the annotations
from datetime import UTC, datetime
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, cast

from msgspec import Raw, Struct, json

from plexd.api import SystemStats  # noqa: TC001 -- the same
from plexd_server.mesh.alerts import Alert, finding_alerts, node_alerts
from plexd_server.mesh.node import HISTORY_MINUTES, NodeRow
from plexd_server.mesh.overview import MeshNode, is_simulated, shown

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from plexd_server.mesh.live import LiveMesh, LiveNode, MeshSnapshot
    from plexd_server.mesh.moment import Moment
    from plexd_server.mesh.status import Presence, Status
    from plexd_server.registry import Node

_MOST_ALERTS: Final = 200
_AT_ONCE: Final = 100
_NO_STATES: Final[Mapping[str, int]] = {}
_ENCODER: Final = json.Encoder()


class FleetNode(MeshNode, frozen=True, kw_only=True):
    """A node at a glance.

    ``received_at`` is when the last report arrived, and ``silent_after_seconds`` how long after it
    the node is silent. ``cpu_history`` has a whole percentage for each of the last 60 minutes, the
    newest last, and null where there is no reading. ``peers`` counts its views by state.
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


class FleetEntry(Struct, gc=False, eq=False):
    """A node of the answer, encoded, and what it was made of."""

    node: Node
    row: NodeRow
    states: Mapping[str, int]
    status: Status
    received_at: datetime | None
    minute: int
    encoded: Raw

    def is_of(self, node: Node, row: NodeRow, states: Mapping[str, int]) -> bool:
        """Return whether it was made of the same."""
        return self.node is node and self.row is row and self.states == states


def fleet(
    live: LiveMesh, snapshot: MeshSnapshot, now: Moment
) -> Generator[None, None, FleetAnswer]:
    """Make the answer in steps; the nodes in it are encoded already."""
    nodes: list[Raw] = []
    worst = _WorstAlerts()
    silent: set[str] = set()
    for node in live.roster.nodes:
        live_node = live.look_up(node.node_id)
        seen = live_node.presence(now)
        nodes.append(_encoded(node, live_node, seen, snapshot, now))
        worst.add(*node_alerts(live_node, seen, now))
        if seen.status == "silent":
            silent.add(node.node_id)
        if len(nodes) % _AT_ONCE == 0:
            yield
    yield from _add_links(worst, live, snapshot, frozenset(silent))
    alerts = worst.chosen()
    return FleetAnswer(
        now=shown(now),
        nodes=cast("Sequence[FleetNode]", nodes),
        alerts=alerts,
        alerts_left_out=worst.found - len(alerts),
    )


def _add_links(
    worst: _WorstAlerts, live: LiveMesh, snapshot: MeshSnapshot, silent: frozenset[str]
) -> Iterator[None]:
    known = live.roster.names
    ours = (link for link in snapshot.bad if link.a in known or link.b in known)
    for alert in finding_alerts(ours, silent):
        if alert is not None:
            worst.add(alert)
        if alert is None or worst.found % _AT_ONCE == 0:
            yield


class _WorstAlerts:
    """The alerts of an answer; of more than there is room for, the worst."""

    def __init__(self) -> None:
        self._kept: list[Alert] = []
        self.found = 0

    def add(self, *alerts: Alert) -> None:
        self._kept += alerts
        self.found += len(alerts)
        if len(self._kept) > 5 * _MOST_ALERTS:
            self._kept = self.chosen()

    def chosen(self) -> list[Alert]:
        """Return the worst, in their order."""
        return nsmallest(
            _MOST_ALERTS, self._kept, key=lambda alert: (alert.severity != "bad", alert.node_ids)
        )


def _encoded(
    node: Node, live_node: LiveNode, seen: Presence, snapshot: MeshSnapshot, now: Moment
) -> Raw:
    """Return the node encoded, which is done again only if something about it changed."""
    row, last = live_node.row, live_node.entry
    states = snapshot.states.get(node.node_id, _NO_STATES)
    minute = int((now.wall + row.offset) // 60)
    if (
        last is not None
        and last.is_of(node, row, states)
        and (last.status, last.received_at, last.minute) == (seen.status, seen.received_at, minute)
    ):
        return last.encoded
    encoded = Raw(_ENCODER.encode(_fleet_node(node, row, seen, states, minute)))
    live_node.entry = FleetEntry(node, row, states, seen.status, seen.received_at, minute, encoded)
    return encoded


def _fleet_node(
    node: Node, row: NodeRow, seen: Presence, states: Mapping[str, int], minute: int
) -> FleetNode:
    return FleetNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=seen.status,
        simulated=is_simulated(node),
        received_at=seen.received_at,
        silent_after_seconds=seen.silent_after,
        measured_at=None if row.system is None else datetime.fromtimestamp(row.system_at, UTC),
        system=row.system,
        cpu_history=_last_hour(row, minute),
        peers=states,
        clock_offset_seconds=round(row.offset, 1),
    )


def _last_hour(row: NodeRow, last: int) -> list[int | None]:
    """Return a number for each of the last minutes, by the node's clock."""
    return [*map(dict(row.history).get, range(last - HISTORY_MINUTES + 1, last + 1))]
