"""The mesh as each node sees it, kept ready: every node asks for it every minute."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd_server.registry import Registry

__all__ = ["PeerBook"]

_FRESH_SECONDS: Final = 5.0


class PeerBook:
    """Answers with all nodes but the one that asks.

    What the command line changed shows within five seconds.

    Each node is encoded once for all others: of a mesh of thousands, an answer is some hundred
    kilobytes that are only put together.
    """

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._reading = asyncio.Lock()
        self._fresh_until = -math.inf
        self._pages: dict[str, bytes] = {}

    async def state_of(self, node_id: str) -> bytes:
        """The JSON of the node's state: its ``peers``."""
        async with self._reading:
            if self._clock.monotonic() >= self._fresh_until:
                self._fresh_until = self._clock.monotonic() + _FRESH_SECONDS
                try:
                    self._pages = await asyncio.to_thread(self._read)
                except BaseException:
                    self.expire()
                    raise
            pages = self._pages
        others = (page for owner, page in pages.items() if owner != node_id)
        return b'{"peers":[' + b",".join(others) + b"]}"

    def expire(self) -> None:
        """Read anew for the next answer: somebody came."""
        self._fresh_until = -math.inf

    def _read(self) -> dict[str, bytes]:
        return {peer.id: msgspec.json.encode(peer) for peer in self._registry.peers_of("")}
