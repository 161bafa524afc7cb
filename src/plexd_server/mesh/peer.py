"""What is kept of one peer, as one node reads it; small, as a mesh has many of these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from plexd_server.mesh.classify import REJECT_SECONDS, Observation, classify
from plexd_server.mesh.hysteresis import HeldState, next_state
from plexd_server.mesh.links import View
from plexd_server.mesh.wording import seconds

if TYPE_CHECKING:
    from plexd.api import TunnelStats

# A tunnel and a round trip are halves of one reading if they are no further apart.
_APART_SECONDS: Final = 60.0
_FAR_PAST: Final = float("-inf")


@dataclass(slots=True, eq=False)
class LivePeer:
    """The newest tunnel reading, the newest round trip, and the state that follows from them.

    Times are epoch seconds of the node's clock. Readings that are not newer are ignored. The
    halves of one reading may arrive one by one: the state before the reading is kept until the
    next reading, so that the second half completes the reading and is not a second one.
    """

    tunnel_at: float = _FAR_PAST
    rtt_at: float = _FAR_PAST
    handshake_at: float | None = None
    rx: int = 0
    tx: int = 0
    rx_moved: int | None = None
    tx_moved: int | None = None
    span: float = 0.0
    loss: float | None = None
    rtt: int | None = None
    lost_in_row: int = 0
    was_reached: bool = False
    held_before: HeldState | None = None
    held: HeldState | None = None
    _view: tuple[float, View] | None = None

    @property
    def at(self) -> float:
        """The time of the last reading."""
        return max(self.tunnel_at, self.rtt_at)

    def read_tunnel(self, at: float, stats: TunnelStats) -> bool:
        """Read a tunnel point, and return whether it is newer than the last."""
        if at <= self.tunnel_at:
            return False
        self.held_before = self.held
        self._move(at, stats.rx_bytes, stats.tx_bytes)
        last = stats.last_handshake_time
        self.handshake_at = last.timestamp() if stats.handshake_succeeded else None
        self.loss = None if stats.packet_loss_percent < 0 else stats.packet_loss_percent
        self.tunnel_at, self.was_reached = at, True
        return True

    def read_round_trip(self, at: float, rtt_nano: int) -> bool:
        """Read a latency point, and return whether it is newer than the last."""
        if at <= self.rtt_at:
            return False
        if not self._has_tunnel(at):
            self.held_before = self.held
        self.rtt, self.rtt_at = rtt_nano, at
        self.lost_in_row = self.lost_in_row + 1 if rtt_nano < 0 else 0
        self.was_reached = self.was_reached or rtt_nano >= 0
        return True

    def evaluate(self) -> None:
        """Derive the state from the newest reading."""
        self.held = next_state(self.held_before, classify(self._observation()), self.at)
        self._view = None

    def view(self, node_id: str, peer_id: str, *, now: float, offset: float, limit: float) -> View:
        """Return the view at ``now`` by the server's clock; the node's is ``offset`` ahead of it.

        It is the same object until there is a new reading. Of a reading that is older than
        ``limit`` seconds, the state is unknown.
        """
        at = self.at
        age = now - at + offset
        if age > limit:
            return self._unknown(node_id, peer_id, age, at - offset + limit, offset)
        cached = self._view
        if cached is None or cached[0] != offset or cached[1].peer_id != peer_id:
            cached = self._view = (offset, self._make_view(node_id, peer_id, offset, now))
        return cached[1]

    def _make_view(self, node_id: str, peer_id: str, offset: float, now: float) -> View:
        assert self.held is not None
        at = self.at
        fresh, pinged = self._has_tunnel(at), self._has_round_trip(at)
        return View(
            node_id=node_id,
            peer_id=peer_id,
            state=self.held.state,
            reason=self.held.reason,
            since=_moment(min(self._since() - offset, now)),
            measured_at=_moment(min(at - offset, now)),
            rtt_nano=self.rtt if pinged and self.rtt != -1 else None,
            loss_percent=self.loss if fresh else None,
            handshake_age_seconds=self._handshake_age() if fresh else None,
            rx_bytes=self.rx if fresh else None,
            tx_bytes=self.tx if fresh else None,
            rx_bytes_per_second=self._rate(self.rx_moved) if fresh else None,
            tx_bytes_per_second=self._rate(self.tx_moved) if fresh else None,
        )

    def _unknown(self, node_id: str, peer_id: str, age: float, since: float, offset: float) -> View:
        last = self._make_view(node_id, peer_id, offset, since)
        reason = f"not read for {seconds(age)}; before that: {last.reason}"
        return replace(last, state="unknown", since=_moment(since), reason=reason)

    def _since(self) -> float:
        """Return since when the state holds: if the keys ended before any reading, since then."""
        assert self.held is not None
        since = self.held.since
        if self.held.state in {"down", "stale"} and self.handshake_at is not None:
            ended = self.handshake_at + REJECT_SECONDS
            return min(since, ended) if self.held.is_first else since
        return since

    def _move(self, at: float, rx: int, tx: int) -> None:
        """Note what moved since the last reading; after a reset or at first, that is not known."""
        is_first, was_reset = self.tunnel_at == _FAR_PAST, rx < self.rx or tx < self.tx
        self.rx_moved = None if is_first or was_reset else rx - self.rx
        self.tx_moved = None if is_first or was_reset else tx - self.tx
        self.span = 0.0 if is_first else at - self.tunnel_at
        self.rx, self.tx = rx, tx

    def _observation(self) -> Observation:
        at = self.at
        pinged = self._has_round_trip(at)
        if not self._has_tunnel(at):
            return Observation(
                rtt_nano=self.rtt if pinged else None,
                lost_in_row=self.lost_in_row,
                was_reached=self.was_reached,
            )
        return Observation(
            handshake_age=self._handshake_age(),
            handshake_succeeded=self.handshake_at is not None,
            rx_bytes=self.rx_moved,
            tx_bytes=self.tx_moved,
            span=self.span,
            rtt_nano=self.rtt if pinged else None,
            lost_in_row=self.lost_in_row if pinged else 0,
            loss_percent=self.loss,
        )

    def _has_tunnel(self, at: float) -> bool:
        return at - self.tunnel_at <= max(_APART_SECONDS, 2 * self.span)

    def _has_round_trip(self, at: float) -> bool:
        return at - self.rtt_at <= max(_APART_SECONDS, 2 * self.span)

    def _handshake_age(self) -> float | None:
        if self.handshake_at is None:
            return None
        return round(max(0.0, self.tunnel_at - self.handshake_at), 1)

    def _rate(self, moved: int | None) -> float | None:
        return None if moved is None or self.span <= 0 else round(moved / self.span, 1)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
