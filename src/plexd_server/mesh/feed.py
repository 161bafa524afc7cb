"""Keeps the live mesh up to date: with the store's points and losses, and with who is registered.

The composition root gives it a store and, as a `NodeLister`, the registry.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from plexd.api import GROUP_SYSTEM
from plexd.background import in_background
from plexd.log_once import LogOnce
from plexd_server.errors import StoreError
from plexd_server.mesh.live import POINTS_AT_ONCE, LiveMesh, Roster
from plexd_server.mesh.moment import Moment
from plexd_server.mesh.node import HISTORY_MINUTES
from plexd_server.store import (
    Ledger,
    NodeSummary,
    Report,
    Series,
    SeriesQuery,
    Store,
    StoredPoint,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plexd.clock import Clock
    from plexd_server.registry import Node

_LOG = logging.getLogger(__name__)
_TICK_SECONDS: Final = 2.0
# A tick takes a twentieth of a core at most, in steps that hold nobody up.
_POINTS_A_TICK: Final = 50_000
_LEDGERS_A_TICK: Final = 20
_ROSTER_SHARE: Final = 0.05
_CPU: Final = "cpu_usage_percent"


class NodeLister(Protocol):
    """Lists the nodes that are registered."""

    def nodes(self, *, revoked: bool = False) -> list[Node]:
        """Return the registered nodes and, if ``revoked``, the revoked ones. Blocks briefly."""
        ...


class ObservedStore:
    """A store whose reports, once durable, are observed by the live mesh.

    The roster of the live mesh is updated before the first report of a node is observed.
    """

    def __init__(self, store: Store, live: LiveMesh, lister: NodeLister) -> None:
        self._store = store
        self._live = live
        self._lister = lister
        self._updating = asyncio.Lock()  # an older list must not replace a newer one
        self._suspects: set[str] = set()

    def suspects(self) -> list[str]:
        """Return a few nodes whose ledger may have a new loss, each once."""
        few = min(len(self._suspects), _LEDGERS_A_TICK)
        return [self._suspects.pop() for _ in range(few)]

    def suspect(self, node_id: str) -> None:
        """Note that a node's ledger may have a new loss."""
        self._suspects.add(node_id)

    async def write(self, report: Report) -> Written:
        """Write a report, and have the live mesh observe those of its points that were stored."""
        written = await self._store.write(report)
        if written.is_notable:
            self.suspect(report.node_id)
        if written.points:
            if report.node_id not in self._live.nodes:
                with suppress(StoreError):  # it is on the roster after a later tick
                    await self.update_roster()
            self._live.observe(replace(report, points=written.points))
        return written

    async def update_roster(self) -> None:
        """Update the roster of the live mesh, which forgets the nodes that are not in it.

        A node that is first heard of while the nodes are being listed may be missing in the list.
        Raises `StoreError` if they cannot be listed.
        """
        async with self._updating:
            heard = set(self._live.nodes)
            roster = await asyncio.to_thread(self._list_nodes, self._live.roster)
            self._live.update_roster(roster)
            self._live.forget(heard.difference(node.node_id for node in roster.nodes))

    def _list_nodes(self, last: Roster) -> Roster:
        """Return the roster; the last one if it is the same. Takes a while if it is long."""
        roster = Roster.of(self._lister.nodes(revoked=True))
        return last if roster == last else roster

    async def ledger(self, node_id: str) -> Ledger:
        return await self._store.ledger(node_id)

    async def latest(self, node_id: str) -> list[StoredPoint]:
        return await self._store.latest(node_id)

    async def series(self, query: SeriesQuery) -> Series:
        return await self._store.series(query)

    async def fleet(self) -> list[NodeSummary]:
        return await self._store.fleet()

    async def expire(
        self, now: datetime, keep: timedelta, keep_rollups: timedelta | None = None
    ) -> int:
        return await self._store.expire(now, keep, keep_rollups)

    async def check(self) -> None:
        await self._store.check()

    async def aclose(self) -> None:
        await self._store.aclose()


@asynccontextmanager
async def feeding(store: ObservedStore, live: LiveMesh, clock: Clock) -> AsyncIterator[None]:
    """Feed the live mesh while the body runs; its roster is there from the beginning.

    Raises `StoreError` if the nodes cannot be listed at the beginning. If they cannot be listed
    later, the last list is used until they can.
    """
    await store.update_roster()
    feed = _Feed(store, live, clock)
    async with in_background(feed.follow(), feed.follow_roster(), feed.recall()):
        yield


class _Feed:
    """The tasks that feed the live mesh."""

    def __init__(self, store: ObservedStore, live: LiveMesh, clock: Clock) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._warnings = LogOnce(_LOG, "server", clock=clock)

    async def follow(self) -> None:
        """Read queued reports, and look up losses, at every tick."""
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            for _ in range(min(self._live.waiting, _POINTS_A_TICK) // POINTS_AT_ONCE + 1):
                self._live.drain(POINTS_AT_ONCE)
                await self._clock.sleep(0)
            for node_id in self._store.suspects():
                await self._look_up_losses(node_id)

    async def follow_roster(self) -> None:
        """Update the roster at every tick, or less often if the list is long."""
        taken = 0.0
        while True:
            await self._clock.sleep(max(_TICK_SECONDS, taken / _ROSTER_SHARE))
            began = self._clock.monotonic()
            try:
                await self._store.update_roster()
            except StoreError as err:
                self._warnings.warn("nodes not listed", "", error=str(err))
            taken = self._clock.monotonic() - began

    async def recall(self) -> None:
        """Recall node by node, so that reports and requests are handled in between."""
        is_whole = True
        for node in self._live.roster.nodes:
            try:
                await self._recall_node(node.node_id)
            except StoreError as err:  # the others may be readable
                is_whole = False
                self._warnings.warn("mesh not recalled", "", node_id=node.node_id, error=str(err))
        self._live.is_recalled = is_whole

    async def _recall_node(self, node_id: str) -> None:
        points = await self._store.latest(node_id)
        if points:
            has_reported = bool(self._live.look_up(node_id).row.arrivals)
            cpu = [] if has_reported else await self._past_cpu(node_id)
            for _ in self._live.recalling(node_id, points, cpu, Moment.of(self._clock)):
                await self._clock.sleep(0)
        await self._look_up_losses(node_id)

    async def _past_cpu(self, node_id: str) -> list[tuple[float, float]]:
        now = self._clock.now()
        found = await self._store.series(
            SeriesQuery(
                node_id=node_id,
                group=GROUP_SYSTEM,
                fields=(_CPU,),
                rates=frozenset(),
                since=now - timedelta(minutes=HISTORY_MINUTES),
                until=now,
                step=timedelta(minutes=1),
            )
        )
        values = zip(found.times, found.avg[_CPU], strict=True)
        return [(time.timestamp(), value) for time, value in values if value is not None]

    async def _look_up_losses(self, node_id: str) -> None:
        """Keep the losses of a node's ledger; if it cannot be read, at a later tick."""
        try:
            ledger = await self._store.ledger(node_id)
            self._live.set_losses(node_id, ledger.losses, ledger.machines)
        except StoreError as err:
            self._store.suspect(node_id)
            self._warnings.warn("losses not looked up", node_id, node_id=node_id, error=str(err))


if TYPE_CHECKING:
    _: type[Store] = ObservedStore
