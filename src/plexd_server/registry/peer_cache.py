"""The peers of each node, kept encoded: every node asks for them every minute."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd_server.registry import Registry

_FRESH_SECONDS: Final = 5.0


class PeerCache:
    """Answers a node with all nodes but itself, as they were at most five seconds ago.

    Each node is encoded once for all others: in a mesh of thousands an answer has some hundred
    kilobytes, which are only put together.
    """

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._reading = asyncio.Lock()
        self._fresh_until = -math.inf
        self._encoded: dict[str, bytes] = {}

    async def state_of(self, node_id: str) -> bytes:
        """Return the JSON of the node's state: its ``peers``."""
        async with self._reading:
            if self._clock.monotonic() >= self._fresh_until:
                self._fresh_until = self._clock.monotonic() + _FRESH_SECONDS
                try:
                    self._encoded = await asyncio.to_thread(self._read)
                except BaseException:
                    self.expire()
                    raise
            encoded = self._encoded
        others = (peer for peer_id, peer in encoded.items() if peer_id != node_id)
        return b'{"peers":[' + b",".join(others) + b"]}"

    def expire(self) -> None:
        """Read the registry again for the next answer."""
        self._fresh_until = -math.inf

    def _read(self) -> dict[str, bytes]:
        return {peer.id: msgspec.json.encode(peer) for peer in self._registry.peers_of("")}
