"""The peers of the mesh, loaded again from the control plane once a minute."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from plexd.agent.peer_list import read_list
from plexd.clock import Clock, SystemClock
from plexd.log_once import LogOnce

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.wireguard import PeerTable

_EVERY_SECONDS = 60.0
_FIRST_SECONDS = 2.0


class PeerFetcher(Protocol):
    """Fetches the peers of a node; `plexd.api.ControlPlane` is one."""

    async def fetch_peers(self, node_id: str) -> Iterable[object] | None:
        """The peers of this moment, None for none. Raises when they cannot be fetched."""


class PeerStore(Protocol):
    """Holds the peers; `plexd.wireguard.PeerIndex` is one."""

    def replace(self, table: PeerTable) -> None:
        """Replace the peers by those of ``table``."""


class PeerRefresh:
    """Loads the control plane's peers into a store once a minute.

    When they cannot be fetched, the known ones stay, and a warning says so; the first success after
    it is logged. Entries that cannot be used are left out, and a warning names them (see
    `plexd.agent.peer_list`); ``interface`` is the mesh's. ``left_out`` says which they were the
    last time.
    """

    def __init__(
        self,
        store: PeerStore,
        fetcher: PeerFetcher,
        node_id: str,
        logger: logging.Logger | None = None,
        *,
        interface: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._node_id = node_id
        self._interface = interface
        self.left_out = ""
        self._clock = clock or SystemClock()
        self._refreshed = asyncio.Event()
        self._logger = logger or logging.getLogger("plexd.agent")
        self._warnings = LogOnce(self._logger, "agent", clock=self._clock)
        self._logs_next_success = False

    async def run(self) -> None:
        """Refresh at once and then every minute, until cancelled."""
        while True:
            await self.refresh()
            self._refreshed.set()
            await self._clock.sleep(_EVERY_SECONDS)

    async def wait_for_answer(self) -> None:
        """Return after the first refresh, or after two seconds.

        Peers measured before that are reported by their public keys instead of their ids.
        """
        with suppress(TimeoutError):
            async with self._clock.timeout(_FIRST_SECONDS):
                await self._refreshed.wait()

    async def refresh(self) -> None:
        """Fetch and load the peers once. When they cannot be fetched, a warning says so."""
        try:
            entries = await self._fetcher.fetch_peers(self._node_id)
            found = await read_list(entries or (), self._interface)
        except Exception as err:  # noqa: BLE001  # whatever it is, the known peers stay
            reason = str(err) or type(err).__name__
            if self._warnings.warn("peers not refreshed", "", error=reason):
                self._logs_next_success = True
            return
        self.left_out = found.error
        found.warn(self._warnings)
        self._store.replace(found.table)
        if self._logs_next_success:
            extra = {"component": "agent", "peers": len(found.table)}
            self._logger.info("peers refreshed", extra=extra)
        self._logs_next_success = False
