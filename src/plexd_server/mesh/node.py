"""What is kept of one node: its newest numbers, its rhythm, its clock, and its views of peers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from plexd.api import GROUP_AGENT, GROUP_LATENCY, GROUP_SYSTEM, GROUP_TUNNEL
from plexd_server.mesh.arrivals import Arrivals, clock_offset, silent_after
from plexd_server.mesh.peer import PeerTrack

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from plexd.api import AgentStats, MetricPoint, SystemStats
    from plexd_server.mesh.links import View
    from plexd_server.store import Loss, StoredPoint

__all__ = ["NodeTrack"]

PEERS_OF_NODE: Final = 4096
HISTORY_MINUTES: Final = 60
# A peer that the node's readings have left out for so long is its peer no more.
_GONE_SECONDS: Final = 3600.0
_LOOK_SECONDS: Final = 60.0
_AHEAD_SECONDS: Final = 5.0
_FAR_PAST: Final = float("-inf")


class NodeTrack:
    """One node. ``losses`` are the latest of its ledger, as somebody else keeps them up to date.

    ``recalled_at`` is when it was read from a store, after its reports could not come here.
    """

    __slots__ = (
        "_full_at",
        "agent",
        "arrivals",
        "history",
        "losses",
        "newest",
        "node_id",
        "peers",
        "recalled_at",
        "system",
        "unseen",
    )

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.arrivals = Arrivals()
        self.newest = self._full_at = self.recalled_at = _FAR_PAST
        self.system: tuple[float, SystemStats] | None = None
        self.agent: tuple[float, AgentStats] | None = None
        self.history: deque[tuple[int, float]] = deque(maxlen=HISTORY_MINUTES)
        self.peers: dict[str, PeerTrack] = {}
        self.unseen = 0
        self.losses: Sequence[Loss] = ()

    @property
    def received_at(self) -> float | None:
        """When it last reported, by the server's clock."""
        return self.arrivals.latest[-1].at if self.arrivals.latest else None

    @property
    def offset(self) -> float:
        """How far its clock is ahead."""
        return clock_offset(self.arrivals.latest)

    @property
    def silent_after(self) -> float:
        """After how many seconds without a report it counts as silent."""
        return silent_after(self.arrivals.latest)

    def take(
        self, points: Sequence[MetricPoint | StoredPoint], received_at: float, room: int
    ) -> int:
        """Read a report's points; how many peers were added, ``room`` at most."""
        known = len(self.peers)
        moments = [point.timestamp.timestamp() for point in points]
        if not moments:
            return 0
        newest = max(moments)
        if self._was_set_back(newest, received_at):
            self._forget()
        touched: dict[str, PeerTrack] = {}
        for point, at in zip(points, moments, strict=True):
            if point.peer_id:
                track = self._track(point.peer_id, known + room)
                if track is not None:
                    self._read_peer(track, point, at, touched)
            else:
                self._read_self(point.group, at, point.data)
        for track in touched.values():
            track.judge()
        self.newest = max(self.newest, newest)
        self.arrivals.add(received_at, received_at - newest)
        return len(self.peers) - known

    def views(
        self, now: float, names: Mapping[str, str], gone: Container[str] = ()
    ) -> Iterator[View]:
        """What it reads of each peer that is not ``gone``; ``names`` turn public keys into ids."""
        offset, limit = self.offset, self.silent_after
        for name, track in self._named(names).items():
            if name not in gone:
                yield track.view(self.node_id, name, now=now, offset=offset, limit=limit)

    def _named(self, names: Mapping[str, str]) -> dict[str, PeerTrack]:
        """Peers by their ids. One that was read under its key as well is what was read last."""
        named: dict[str, PeerTrack] = {}
        for peer_id, track in self.peers.items():
            if track.standing is not None and track.at > self.newest - _GONE_SECONDS:
                name = names.get(peer_id, peer_id)
                other = named.get(name)
                if other is None or track.at > other.at:
                    named[name] = track
        return named

    def remember_cpu(self, at: float, percent: float) -> None:
        """Keep one number a minute for the sparkline."""
        minute = int(at // 60)
        if not self.history or minute > self.history[-1][0]:
            self.history.append((minute, percent))

    def _was_set_back(self, newest: float, received_at: float) -> bool:
        """Whether the clock was ahead, and is no more: what was read then would stay the newest."""
        is_news = self.received_at is not None and received_at >= self.received_at
        was_ahead = self.newest > received_at + _AHEAD_SECONDS
        return is_news and was_ahead and newest < self.newest - _AHEAD_SECONDS

    def _forget(self) -> None:
        self.peers.clear()
        self.history.clear()
        self.arrivals = Arrivals()
        self.newest = self._full_at = _FAR_PAST
        self.system = self.agent = None

    def _track(self, peer_id: str, most: int) -> PeerTrack | None:
        track = self.peers.get(peer_id)
        if track is None:
            if len(self.peers) >= min(most, PEERS_OF_NODE) and not self._let_go_of_one():
                self.unseen += 1
                return None
            track = self.peers[peer_id] = PeerTrack()
        return track

    def _let_go_of_one(self) -> bool:
        """Make room: the peer read longest ago goes, if it is no peer any more.

        Looking for it takes a while with many peers, so not again within a minute in vain.
        """
        if not self.peers or self.newest < self._full_at + _LOOK_SECONDS:
            return False
        oldest = min(self.peers, key=lambda peer: self.peers[peer].at)
        if self.peers[oldest].at > self.newest - _GONE_SECONDS:
            self._full_at = self.newest
            return False
        del self.peers[oldest]
        return True

    @staticmethod
    def _read_peer(
        track: PeerTrack, point: MetricPoint | StoredPoint, at: float, touched: dict[str, PeerTrack]
    ) -> None:
        """Judge what was read before only when it is complete: as the next reading begins."""
        data: Any = point.data
        if point.group == GROUP_TUNNEL:
            if at > track.tunnel_at and point.peer_id in touched:
                track.judge()
            is_news = track.read_tunnel(at, data)
        else:
            assert point.group == GROUP_LATENCY
            is_news = track.read_round_trip(at, data.rtt_nano)
        if is_news:
            touched[point.peer_id] = track

    def _read_self(self, group: str, at: float, data: Any) -> None:
        if group == GROUP_SYSTEM:
            if self.system is None or at > self.system[0]:
                self.system = (at, data)
            self.remember_cpu(at, data.cpu_usage_percent)
        elif group == GROUP_AGENT and (self.agent is None or at > self.agent[0]):
            self.agent = (at, data)
