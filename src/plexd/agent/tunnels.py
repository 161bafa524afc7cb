"""The mesh's part of the composition: the peers, their tunnels, and the pings to them.

Loaded only if an interface is configured, so that a node without a mesh does not pay for it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from plexd import metrics
from plexd.agent.peer_list import PeerList
from plexd.agent.peer_refresh import PeerRefresh
from plexd.icmp import ICMPPinger
from plexd.log_once import LogOnce
from plexd.wireguard import PeerIndex, WireGuardError, WireGuardStatsReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.agent.config.settings import Settings
    from plexd.agent.peer_refresh import PeerFetcher
    from plexd.api import Peer

_SHORTEST = timedelta(seconds=1)
_FEWEST_PINGS = 8  # fewer say nothing about the loss


class Tunnels:
    """The sources behind the groups ``tunnel`` and ``latency``.

    ``index`` starts with the peers of the configuration or, if there are none, with ``known``;
    the caller closes ``pinger``.
    """

    def __init__(self, settings: Settings, known: Iterable[Peer]) -> None:
        self.index = PeerIndex(settings.peers)
        self._interface = settings.wireguard.interface
        if not settings.peers:
            self._begin_with(known)
        self.pinger = ICMPPinger(
            self._address, timeout=settings.ping.timeout, loss_window=_pings_in_window(settings)
        )
        self._reader = WireGuardStatsReader(
            settings.wireguard.interface,
            self.index,
            loss=self.pinger.loss,
            stale_after=settings.wireguard.stale_after,
        )

    def _begin_with(self, known: Iterable[Peer]) -> None:
        found = PeerList()
        for peer in known:
            found.add(peer)
        found.warn(LogOnce(None, "agent"))
        self.index.replace(found.table)

    def refresh(
        self, plane: PeerFetcher, node_id: str, logger: logging.Logger | None = None
    ) -> PeerRefresh:
        """What loads the peers that ``plane`` knows into ``index``, when it is run."""
        return PeerRefresh(self.index, plane, node_id, logger, interface=self._interface)

    def _address(self, peer_id: str) -> str:
        return str(self.index.address(peer_id))

    def addresses(self) -> dict[str, str]:
        """Each peer's address in the mesh."""
        return {peer_id: self._address(peer_id) for peer_id in self.index.peer_ids()}

    def collectors(self) -> dict[str, metrics.Collector]:
        """The collectors of the mesh by their group, in the order a single cycle runs them.

        The tunnels come last, since their loss is that of the pings.
        """
        logger = logging.getLogger("plexd.metrics")
        return {
            metrics.GROUP_LATENCY: metrics.LatencyCollector(self.pinger, self.index, logger),
            metrics.GROUP_TUNNEL: metrics.TunnelCollector(self._reader, logger),
        }

    async def is_there(self) -> bool:
        """Whether the interface exists and can be read."""
        try:
            await self._reader.read_tunnel_stats()
        except WireGuardError:
            return False
        return True


def _pings_in_window(settings: Settings) -> int:
    """How many pings the loss is over: each peer is pinged at every collection."""
    interval = max(settings.metrics.collect_interval, _SHORTEST)
    return max(_FEWEST_PINGS, round(settings.ping.loss_window / interval))
