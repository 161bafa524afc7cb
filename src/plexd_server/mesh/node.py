"""What is kept of one node: its newest numbers, its rhythm, its clock, and its views of peers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from plexd.api import GROUP_LATENCY, GROUP_SYSTEM, GROUP_TUNNEL, MetricPoint, SystemStats
from plexd_server.mesh.arrivals import Arrivals, clock_offset, silent_after
from plexd_server.mesh.peer import LivePeer

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from plexd_server.mesh.links import View
    from plexd_server.store import Loss, StoredPoint

PEERS_OF_NODE: Final = 4096
HISTORY_MINUTES: Final = 60
# A peer that the node's readings leave out for so long is no peer of it any more.
_EXPIRE_SECONDS: Final = 3600.0
_EVICT_SECONDS: Final = 60.0
_AHEAD_SECONDS: Final = 5.0
_FAR_PAST: Final = float("-inf")


@dataclass(slots=True, eq=False)
class LiveNode:
    """One node. ``losses`` and ``machines`` are those of its ledger, kept up to date by the feed.

    ``recalled_at`` is when it was read from the store: before that, no report could arrive here.
    ``left_out`` counts readings of peers for which there was no room.
    """

    node_id: str
    arrivals: Arrivals = field(default_factory=Arrivals)
    newest: float = _FAR_PAST
    recalled_at: float = _FAR_PAST
    system: tuple[float, SystemStats] | None = None
    history: deque[tuple[int, float]] = field(
        default_factory=partial(deque, maxlen=HISTORY_MINUTES)
    )
    peers: dict[str, LivePeer] = field(default_factory=dict)
    left_out: int = 0
    losses: Sequence[Loss] = ()
    machines: Sequence[str] = ()
    _full_at: float = _FAR_PAST

    @property
    def received_at(self) -> float | None:
        """The time of its last report, by the server's clock."""
        return self.arrivals.latest[-1].at if self.arrivals.latest else None

    @property
    def offset(self) -> float:
        """The seconds by which its clock is ahead."""
        return clock_offset(self.arrivals.latest)

    @property
    def silent_after(self) -> float:
        """The seconds without a report after which it counts as silent."""
        return silent_after(self.arrivals.latest)

    def read_points(
        self, points: Sequence[MetricPoint | StoredPoint], received_at: float, room: int
    ) -> int:
        """Read points of a report, and return how many peers were added; ``room`` at most."""
        known = len(self.peers)
        moments = [point.timestamp.timestamp() for point in points]
        if not moments:
            return 0
        newest = max(moments)
        if self._was_set_back(newest, received_at):
            self._reset()
        changed: dict[str, LivePeer] = {}
        for point, at in zip(points, moments, strict=True):
            if point.peer_id:
                peer = self._peer(point.peer_id, known + room)
                if peer is not None:
                    self._read_peer(peer, point, at, changed)
            else:
                self._read_self(point.group, at, point.data)
        for peer in changed.values():
            peer.evaluate()
        self.newest = max(self.newest, newest)
        self.arrivals.add(received_at, received_at - newest)
        return len(self.peers) - known

    def views(
        self, now: float, ids: Mapping[str, str], revoked: Container[str] = ()
    ) -> Iterator[View]:
        """Return its view of each peer that is not ``revoked``; ``ids`` are by public key."""
        offset, limit = self.offset, self.silent_after
        for peer_id, peer in self._peers_by_id(ids).items():
            if peer_id not in revoked:
                yield peer.view(self.node_id, peer_id, now=now, offset=offset, limit=limit)

    def _peers_by_id(self, ids: Mapping[str, str]) -> dict[str, LivePeer]:
        """Return the peers by id; of a peer read by its id and by its key, the last reading."""
        found: dict[str, LivePeer] = {}
        for name, peer in self.peers.items():
            if peer.held is not None and peer.at > self.newest - _EXPIRE_SECONDS:
                peer_id = ids.get(name, name)
                other = found.get(peer_id)
                if other is None or peer.at > other.at:
                    found[peer_id] = peer
        return found

    def remember_cpu(self, at: float, percent: float) -> None:
        """Keep one number per minute for the sparkline."""
        minute = int(at // 60)
        if not self.history or minute > self.history[-1][0]:
            self.history.append((minute, percent))

    def _was_set_back(self, newest: float, received_at: float) -> bool:
        """Return whether the clock was ahead and is no more: old readings would stay the newest."""
        is_new = self.received_at is not None and received_at >= self.received_at
        was_ahead = self.newest > received_at + _AHEAD_SECONDS
        return is_new and was_ahead and newest < self.newest - _AHEAD_SECONDS

    def _reset(self) -> None:
        self.peers.clear()
        self.history.clear()
        self.arrivals = Arrivals()
        self.newest = self._full_at = _FAR_PAST
        self.system = None

    def _peer(self, peer_id: str, most: int) -> LivePeer | None:
        peer = self.peers.get(peer_id)
        if peer is None:
            if len(self.peers) >= min(most, PEERS_OF_NODE) and not self._evict_one():
                self.left_out += 1
                return None
            peer = self.peers[peer_id] = LivePeer()
        return peer

    def _evict_one(self) -> bool:
        """Delete the peer that was read longest ago, if it has expired; return whether one was.

        The search takes a while with many peers, so a vain one is not repeated within a minute.
        """
        if not self.peers or self.newest < self._full_at + _EVICT_SECONDS:
            return False
        oldest = min(self.peers, key=lambda peer: self.peers[peer].at)
        if self.peers[oldest].at > self.newest - _EXPIRE_SECONDS:
            self._full_at = self.newest
            return False
        del self.peers[oldest]
        return True

    @staticmethod
    def _read_peer(
        peer: LivePeer, point: MetricPoint | StoredPoint, at: float, changed: dict[str, LivePeer]
    ) -> None:
        """Read a point; the last reading is complete, and evaluated, when the next one begins."""
        data: Any = point.data
        if point.group == GROUP_TUNNEL:
            if at > peer.tunnel_at and point.peer_id in changed:
                peer.evaluate()
            is_new = peer.read_tunnel(at, data)
        else:
            assert point.group == GROUP_LATENCY
            is_new = peer.read_round_trip(at, data.rtt_nano)
        if is_new:
            changed[point.peer_id] = peer

    def _read_self(self, group: str, at: float, data: Any) -> None:
        if group == GROUP_SYSTEM:
            if self.system is None or at > self.system[0]:
                self.system = (at, data)
            self.remember_cpu(at, data.cpu_usage_percent)
