"""What a node's row says about each of its peers at a moment. Pure.

Stamps are by the node's clock. They are shown by the server's, as it is now: shifted by how far the
node's clock is ahead, and by how much the server's own was set since the node's last arrival.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from plexd_server.mesh.classify import REJECT_SECONDS
from plexd_server.mesh.links import View
from plexd_server.mesh.node import EXPIRE_SECONDS
from plexd_server.mesh.peer import PeerRow  # noqa: TC001 -- the same
from plexd_server.mesh.wording import seconds

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from plexd_server.mesh.moment import Moment
    from plexd_server.mesh.node import NodeRow

_FAR_FUTURE: Final = 253_402_300_799.0  # the last second of the year 9999
_DISTANT_PAST: Final = -62_135_596_800.0  # the first of the year 1


class Frame(NamedTuple):
    """How a node's stamps are read at a moment; equal frames show them alike.

    Attributes:
        shown: what is added to a stamp to have it by the server's clock as it is now.
        arrived: the node's last arrival, by the node's clock.
        since: the seconds since that arrival.
        limit: the age from which a reading is too old.
    """

    shown: float
    arrived: float
    since: float
    limit: float

    @classmethod
    def of(cls, row: NodeRow, moment: Moment) -> Frame | None:
        """Return the frame of a row; None if nothing ever arrived."""
        if not row.arrivals:
            return None
        last, offset = row.arrivals[-1], row.offset
        stepped = round(moment.shift - last.shift)
        arrived = last.at + last.shift + offset
        return cls(stepped - offset, arrived, moment.steady - last.at, row.silent_after)

    def age(self, stamp: float) -> float:
        """Return the seconds since ``stamp``, of which those after the last arrival are steady."""
        return self.since + max(0.0, self.arrived - stamp)

    def show(self, stamp: float) -> datetime:
        """Return ``stamp`` by the server's clock."""
        return moment_of(stamp + self.shown)


class _Made(Struct, frozen=True, gc=False):
    """A view, and what it was made of."""

    peer: PeerRow
    shown: float
    view: View


class Views(Struct, gc=False, eq=False):
    """The views of one node, made again only for what changed since."""

    made: dict[str, _Made] = field(default_factory=dict)

    def of(
        self, row: NodeRow, moment: Moment, ids: Mapping[str, str], revoked: Container[str] = ()
    ) -> Iterator[View]:
        """Yield the view of each peer that is not ``revoked``; ``ids`` are by public key.

        A view is the same object as long as nothing about it changes.
        """
        frame = Frame.of(row, moment)
        if frame is None:
            return
        before, self.made = self.made, {}
        for peer_id, peer in _by_id(row, ids).items():
            if peer_id in revoked:
                continue
            made = before.get(peer_id)
            if made is None or made.peer is not peer or made.shown != frame.shown:
                view = _make_view(row.node_id, peer_id, peer, frame)
                made = _Made(peer, frame.shown, view)
            self.made[peer_id] = made
            age = frame.age(peer.at)
            yield made.view if age <= frame.limit else _unknown(made.view, peer, frame, age)


def _by_id(row: NodeRow, ids: Mapping[str, str]) -> dict[str, PeerRow]:
    """Return the peers by id; of a peer read by its id and by its key, the last reading."""
    found: dict[str, PeerRow] = {}
    for name, peer in row.peers.items():
        if peer.at > row.newest - EXPIRE_SECONDS:
            peer_id = ids.get(name, name)
            other = found.get(peer_id)
            if other is None or peer.at > other.at:
                found[peer_id] = peer
    return found


def _make_view(node_id: str, peer_id: str, peer: PeerRow, frame: Frame) -> View:
    assert peer.held is not None
    fresh = peer.has_tunnel
    return View(
        node_id=node_id,
        peer_id=peer_id,
        state=peer.held.state,
        reason=peer.held.verdict.reason,
        since=frame.show(min(_since(peer), frame.arrived)),
        measured_at=frame.show(min(peer.at, frame.arrived)),
        rtt_nano=peer.rtt if peer.has_round_trip and peer.rtt != -1 else None,
        loss_percent=peer.known_loss,
        handshake_age_seconds=peer.handshake_age if fresh else None,
        rx_bytes=peer.rx if fresh else None,
        tx_bytes=peer.tx if fresh else None,
        rx_bytes_per_second=peer.rate(peer.rx_moved) if fresh else None,
        tx_bytes_per_second=peer.rate(peer.tx_moved) if fresh else None,
    )


def _unknown(last: View, peer: PeerRow, frame: Frame, age: float) -> View:
    since = frame.show(peer.at + frame.limit)
    reason = f"not read for {seconds(age)}; before that: {last.reason}"
    return replace(last, state="unknown", since=since, reason=reason)


def _since(peer: PeerRow) -> float:
    """Return since when the state holds: if the keys ended before any reading, since then."""
    held = peer.held
    assert held is not None
    if held.is_first and held.state in {"down", "stale"} and peer.handshake_at is not None:
        return min(held.since, peer.handshake_at + REJECT_SECONDS)
    return held.since


def moment_of(at: float) -> datetime:
    """Return epoch seconds as a time, at most the year 9999."""
    return datetime.fromtimestamp(min(max(at, _DISTANT_PAST), _FAR_FUTURE), UTC)
