"""What is kept of one peer, as one node reads it; small, as a mesh has many of these. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from plexd_server.mesh.classify import Observation, classify
from plexd_server.mesh.hysteresis import HeldState, next_state

if TYPE_CHECKING:
    from plexd.api import TunnelStats

# A tunnel and a round trip are halves of one reading if they are no further apart.
_APART_SECONDS: Final = 60.0
_ALL_LOST_PERCENT: Final = 100.0
FAR_PAST: Final = float("-inf")


class PeerRow(Struct, gc=False, kw_only=True, omit_defaults=True):
    """The newest tunnel reading, the newest round trip, and the state that follows from them.

    Times are epoch seconds of the node's clock. Readings that are not newer are ignored. The
    halves of one reading may arrive one by one: the state before the reading is kept until the
    next reading, so that the second half completes the reading and is not a second one. The state
    is derived when it is asked for, once for a reading.
    """

    tunnel_at: float = FAR_PAST
    rtt_at: float = FAR_PAST
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
    held_now: HeldState | None = None
    is_derived: bool = True

    @property
    def held(self) -> HeldState | None:
        """The state after the last reading; None before the first."""
        if not self.is_derived:
            self.held_now = next_state(self.held_before, classify(self._observation()), self.at)
            self.is_derived = True
        return self.held_now

    @property
    def at(self) -> float:
        """The time of the last reading."""
        return max(self.tunnel_at, self.rtt_at)

    @property
    def has_tunnel(self) -> bool:
        """Whether the last reading has the tunnel's numbers."""
        return self._has_tunnel(self.at)

    @property
    def has_round_trip(self) -> bool:
        """Whether the last reading has a ping."""
        return self.at - self.rtt_at <= max(_APART_SECONDS, 2 * self.span)

    @property
    def handshake_age(self) -> float | None:
        """The seconds from the last handshake to the reading of the tunnel."""
        if self.handshake_at is None:
            return None
        return round(max(0.0, self.tunnel_at - self.handshake_at), 1)

    @property
    def known_loss(self) -> float | None:
        """The lost share of the latest pings; None if it is not known.

        The node counts before the ping of this reading ends. If that ping is answered, it is the
        first answer after an outage, with which the count begins again.
        """
        is_answered = self.has_round_trip and self.rtt is not None and self.rtt >= 0
        is_over = self.loss is not None and self.loss >= _ALL_LOST_PERCENT and is_answered
        return None if is_over or not self.has_tunnel else self.loss

    def rate(self, moved: int | None) -> float | None:
        """Return bytes per second since the reading before."""
        return None if moved is None or self.span <= 0 else round(moved / self.span, 1)

    def read_tunnel(self, at: float, stats: TunnelStats) -> None:
        """Read a tunnel point that is newer than the last."""
        self.held_before = self.held
        self._move(at, stats.rx_bytes, stats.tx_bytes)
        last = stats.last_handshake_time
        self.handshake_at = last.timestamp() if stats.handshake_succeeded else None
        self.loss = None if stats.packet_loss_percent < 0 else stats.packet_loss_percent
        self.tunnel_at, self.was_reached = at, True
        self.is_derived = False

    def read_round_trip(self, at: float, rtt_nano: int) -> None:
        """Read a latency point that is newer than the last."""
        if not self._has_tunnel(at):
            self.held_before = self.held
        self.rtt, self.rtt_at = rtt_nano, at
        self.lost_in_row = self.lost_in_row + 1 if rtt_nano < 0 else 0
        self.was_reached = self.was_reached or rtt_nano >= 0
        self.is_derived = False

    def _move(self, at: float, rx: int, tx: int) -> None:
        """Note what moved since the last reading; after a reset or at first, that is not known."""
        is_first, was_reset = self.tunnel_at == FAR_PAST, rx < self.rx or tx < self.tx
        self.rx_moved = None if is_first or was_reset else rx - self.rx
        self.tx_moved = None if is_first or was_reset else tx - self.tx
        self.span = 0.0 if is_first else at - self.tunnel_at
        self.rx, self.tx = rx, tx

    def _observation(self) -> Observation:
        pinged = self.has_round_trip
        if not self.has_tunnel:
            return Observation(
                rtt_nano=self.rtt if pinged else None,
                lost_in_row=self.lost_in_row,
                was_reached=self.was_reached,
            )
        return Observation(
            handshake_age=self.handshake_age,
            handshake_succeeded=self.handshake_at is not None,
            rx_bytes=self.rx_moved,
            tx_bytes=self.tx_moved,
            span=self.span,
            rtt_nano=self.rtt if pinged else None,
            lost_in_row=self.lost_in_row if pinged else 0,
            loss_percent=self.known_loss,
        )

    def _has_tunnel(self, at: float) -> bool:
        return at - self.tunnel_at <= max(_APART_SECONDS, 2 * self.span)
