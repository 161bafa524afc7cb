"""`judge`: what a node's readings do to what is known of it. Pure.

One reading after the other is read, in the order in which they arrived. A reading is newer than the
last of its kind (the same group and peer) if its stamp is, or if the node's clock was set back
since: then the last stamp lies more than five seconds beyond the arrival of this one, by the
server's clock, and this one's is more than five seconds older. All that was known of the node is
then forgotten, as it was read by another clock. What arrives late is no newer than what was already
read.
"""

from __future__ import annotations

from collections.abc import Container  # noqa: TC003 -- a named tuple keeps its annotations
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from plexd.api import GROUP_LATENCY, GROUP_SYSTEM, GROUP_TUNNEL
from plexd_server.mesh.arrivals import with_arrival
from plexd_server.mesh.node import EXPIRE_SECONDS, HISTORY_MINUTES, NodeRow
from plexd_server.mesh.peer import FAR_PAST, PeerRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint
    from plexd_server.mesh.moment import Moment
    from plexd_server.store import StoredPoint

MOST_FOREIGN: Final = 1024
_MOST_PEERS: Final = 250_000
_AHEAD_SECONDS: Final = 5.0
_SWEEP_SECONDS: Final = 60.0


class Readings(NamedTuple):
    """Points of a node that arrived together, in the order of their report.

    Attributes:
        points: the points.
        moment: when they arrived.
        registered: the ids and keys of registered nodes; other peers are foreign.
        most_foreign: how many foreign peers may be kept of the node.
        room: how many peers may be added.
        are_recalled: whether they were read from the store. They fill in what is not known yet.
    """

    points: Sequence[MetricPoint | StoredPoint]
    moment: Moment
    registered: Container[str] = frozenset[str]()
    most_foreign: int = MOST_FOREIGN
    room: int = _MOST_PEERS
    are_recalled: bool = False


def judge(row: NodeRow, readings: Readings) -> NodeRow:
    """Return the row after ``readings``; ``row`` stays as it is.

    To judge readings in pieces, in their order, gives the same. It takes some microseconds a point
    and a few nanoseconds for each peer of the row: peers without room are refused in no time, and
    room is looked for at most once a minute.
    """
    if not readings.points:
        return row
    judging = _Judging(row, readings)
    for point in readings.points:
        judging.read(point)
    return judging.finish()


class _Judging:
    """A row that is being judged; a peer is copied when it is first changed."""

    def __init__(self, row: NodeRow, readings: Readings) -> None:
        self._row = replace(row, peers=dict(row.peers))
        self._readings = readings
        self._most = len(row.peers) + readings.room
        self._mine: set[str] = set()
        self._newest = FAR_PAST
        is_late = bool(row.arrivals) and row.arrivals[-1].at > readings.moment.steady
        self._fills_in = readings.are_recalled and is_late
        self._may_forget = not is_late

    def read(self, point: MetricPoint | StoredPoint) -> None:
        at, data = point.timestamp.timestamp(), point.data
        self._newest = max(self._newest, at)
        if point.group == GROUP_SYSTEM:
            self._read_system(at, data)
        elif point.group == GROUP_TUNNEL:
            self._read_tunnel(point.peer_id, at, data)
        elif point.group == GROUP_LATENCY:
            self._read_round_trip(point.peer_id, at, data)
        if self._row.began == FAR_PAST:
            self._row.first, self._row.began = at, self._readings.moment.steady

    def finish(self) -> NodeRow:
        """Return the row once all points were read."""
        row = self._row
        if not self._fills_in:
            row.newest = max(row.newest, self._newest)
            row.arrivals = with_arrival(row.arrivals, self._readings.moment, self._newest)
            row.rhythm = None
        return row

    def _read_system(self, at: float, stats: Any) -> None:
        last = self._row.system_at
        is_again = at == last and not self._readings.are_recalled
        if is_again or self._is_newer(at, last):
            self._row.system, self._row.system_at = stats, at
        remember_cpu(self._row, at, stats.cpu_usage_percent)

    def _read_tunnel(self, peer_id: str, at: float, stats: Any) -> None:
        peer = self._row.peers.get(peer_id)
        if self._is_newer(at, FAR_PAST if peer is None else peer.tunnel_at):
            peer = self._own(peer_id)
            if peer is not None:
                peer.read_tunnel(at, stats)

    def _read_round_trip(self, peer_id: str, at: float, result: Any) -> None:
        peer = self._row.peers.get(peer_id)
        if self._is_newer(at, FAR_PAST if peer is None else peer.rtt_at):
            peer = self._own(peer_id)
            if peer is not None:
                peer.read_round_trip(at, result.rtt_nano)

    def _is_newer(self, at: float, last: float) -> bool:
        """Return whether a reading is newer than the last; forget all if the clock was set back."""
        if last == FAR_PAST or self._readings.are_recalled:
            return last == FAR_PAST
        was_ahead = last > self._readings.moment.wall + _AHEAD_SECONDS
        if was_ahead and at < last - _AHEAD_SECONDS and self._may_forget:
            self._forget(at)
            return True
        return at > last

    def _forget(self, at: float) -> None:
        row = self._row
        self._row = NodeRow(node_id=row.node_id, left_out=row.left_out, swept_at=row.swept_at)
        self._mine.clear()
        self._newest = at

    def _own(self, peer_id: str) -> PeerRow | None:
        """Return the peer to change, or None if there is no room for it."""
        known = self._row.peers.get(peer_id)
        if known is not None and peer_id in self._mine:
            return known
        if known is None and not self._admit(peer_id):
            self._row.left_out += 1
            return None
        self._mine.add(peer_id)
        mine = self._row.peers[peer_id] = PeerRow() if known is None else copy(known)
        return mine

    def _admit(self, peer_id: str) -> bool:
        is_foreign = peer_id not in self._readings.registered
        if not self._has_room(is_foreign=is_foreign):
            self._sweep()
            if not self._has_room(is_foreign=is_foreign):
                return False
        self._row.foreign += is_foreign
        return True

    def _has_room(self, *, is_foreign: bool) -> bool:
        row, most = self._row, self._readings.most_foreign
        return len(row.peers) < self._most and not (is_foreign and row.foreign >= most)

    def _sweep(self) -> None:
        """Delete the peers that have expired, at most once a minute, as it takes a while."""
        row, now = self._row, self._readings.moment.steady
        if now - row.swept_at < _SWEEP_SECONDS:
            return
        oldest = max(row.newest, self._newest) - EXPIRE_SECONDS
        row.swept_at = now
        row.peers = {name: peer for name, peer in row.peers.items() if peer.at > oldest}
        row.foreign = sum(name not in self._readings.registered for name in row.peers)


def remember_cpu(row: NodeRow, at: float, percent: float) -> None:
    """Keep one number for each minute, of the last hour; whole, as they are drawn small."""
    minute = int(at // 60)
    if not row.history or minute > row.history[-1][0]:
        row.history = (*row.history, (minute, round(percent)))[-HISTORY_MINUTES:]
