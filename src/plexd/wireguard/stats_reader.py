"""Every tunnel of one interface as it is reported (group ``tunnel``)."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from plexd.api import TunnelStats
from plexd.clock import Clock, SystemClock
from plexd.wireguard import kernel, userspace
from plexd.wireguard.device import Absent, Device, DevicePeer
from plexd.wireguard.errors import WireGuardError

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Callable, Sequence

    from plexd.wireguard.device import DeviceSource, OddPeer
    from plexd.wireguard.peer_index import PeerIndex

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_NOT_MEASURED: Final = -1.0
_STRIDE: Final = 500  # peers between two turns of the event loop, about a millisecond


class WireGuardStatsReader:
    """Reads ``interface`` from the kernel, or from a userspace daemon if the kernel lacks it.

    ``peers`` names the peer of a key; a key that ``peers`` does not have is reported under the
    key itself. A peer that the interface does not have is not reported, for it has no counters;
    a warning is logged whenever more peers are missing than before. ``loss`` returns a peer's
    lost pings in percent, or -1. A handshake older than ``stale_after`` is stale; a peer that never
    had one is not. ``connect`` makes a netlink socket, ``directory`` holds the daemons' sockets
    (default: those of wireguard-go and of amneziawg-go). A peer that the source reports unreadably
    is left out, and a warning names it when it was readable before.

    Both sources are looked for at each reading, so an interface may come, go and change its kind.
    It keeps no connection and nothing of an earlier reading. Use from one event loop at a time.
    """

    def __init__(
        self,
        interface: str,
        peers: PeerIndex,
        *,
        loss: Callable[[str], float] | None = None,
        stale_after: timedelta = timedelta(seconds=180),
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
        connect: Callable[[], socket.socket] = kernel.netlink_socket,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._interface = interface
        self._peers = peers
        self._loss = loss
        self._stale_after = stale_after
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger(__name__)
        self._connect = connect
        self._directories = userspace.DIRECTORIES if directory is None else (directory,)
        self._missing: frozenset[str] = frozenset()
        self._odd: frozenset[OddPeer] = frozenset()

    async def read_tunnel_stats(self) -> Sequence[TunnelStats]:
        """Return every peer of the interface: those known in the index's order, the others by key.

        Lasts at most 4 s. Raises `WireGuardError` when neither source has the interface,
        with both reasons, and when the one that has it cannot be read or trusted.
        """
        device = await self._read_device()
        known, strangers = await self._stats(device)
        peer_ids = self._peers.peer_ids()
        self._note_odd(frozenset(device.odd))
        odd = {self._peers.peer_id(one.public_key) for one in device.odd}
        self._note_missing(frozenset(peer_ids).difference(known, odd))
        ordered = [known.pop(peer_id) for peer_id in peer_ids if peer_id in known]
        # A peer that left the index meanwhile was known when it was looked up.
        return [*ordered, *known.values(), *sorted(strangers, key=lambda stats: stats.peer_id)]

    async def _read_device(self) -> Device:
        in_kernel = await _read(
            await kernel.open(self._interface, clock=self._clock, connect=self._connect)
        )
        if not isinstance(in_kernel, Absent):
            return in_kernel
        reasons = []
        for directory in self._directories:
            served = await _read(
                await userspace.open(self._interface, clock=self._clock, directory=directory)
            )
            if not isinstance(served, Absent):
                return served
            reasons.append(served.reason)
        raise WireGuardError(
            f"{self._interface}: kernel: {in_kernel.reason}; userspace: {', '.join(reasons)}"
        )

    async def _stats(self, device: Device) -> tuple[dict[str, TunnelStats], list[TunnelStats]]:
        now = self._clock.now()
        known: dict[str, TunnelStats] = {}
        strangers: list[TunnelStats] = []
        for count, peer in enumerate(device.peers, start=1):
            peer_id = self._peers.peer_id(peer.public_key)
            if peer_id is None:
                strangers.append(self._tunnel(peer.public_key, peer, now))
            else:
                known[peer_id] = self._tunnel(peer_id, peer, now)
            if count % _STRIDE == 0:
                await asyncio.sleep(0)
        return known, strangers

    def _tunnel(self, peer_id: str, peer: DevicePeer, now: datetime) -> TunnelStats:
        handshake = peer.last_handshake
        # The wall clock may have been set back since: then the handshake was just now.
        time = _NEVER if handshake is None else min(handshake, now)
        return TunnelStats(
            peer_id=peer_id,
            last_handshake_time=time,
            rx_bytes=peer.rx_bytes,
            tx_bytes=peer.tx_bytes,
            handshake_succeeded=handshake is not None,
            handshake_stale=handshake is not None and now - time > self._stale_after,
            packet_loss_percent=_NOT_MEASURED if self._loss is None else self._loss(peer_id),
        )

    def _note_odd(self, odd: frozenset[OddPeer]) -> None:
        # By key: a counter in the reason would make the same peer a new one at each reading.
        new = {one.public_key for one in odd} - {one.public_key for one in self._odd}
        if new:
            first = min((o for o in odd if o.public_key in new), key=lambda one: one.public_key)
            extra = {
                "component": "wireguard",
                "interface": self._interface,
                "count": len(odd),
                "peer_id": self._peers.peer_id(first.public_key) or first.public_key,
                "error": first.reason,
            }
            self._logger.warning("peers not readable", extra=extra)
        self._odd = odd

    def _note_missing(self, missing: frozenset[str]) -> None:
        if missing - self._missing:
            extra = {
                "component": "wireguard",
                "interface": self._interface,
                "count": len(missing),
                "peer_id": min(missing),
            }
            self._logger.warning("peers missing on the interface", extra=extra)
        self._missing = missing


async def _read(source: DeviceSource | Absent) -> Device | Absent:
    return source if isinstance(source, Absent) else await source.read_device()
