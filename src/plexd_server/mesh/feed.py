"""Keeps the live mesh up to date: with the store's points and losses, and with who is registered.

The composition root gives it a store and, as a `NodeLister`, the registry.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from plexd.api import GROUP_SYSTEM
from plexd.background import in_background
from plexd.log_once import LogOnce
from plexd_server.errors import StoreError
from plexd_server.mesh.live import Roster
from plexd_server.mesh.node import HISTORY_MINUTES
from plexd_server.store import SeriesQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from plexd.clock import Clock
    from plexd_server.mesh.live import LiveMesh
    from plexd_server.registry import Node
    from plexd_server.store import (
        Ledger,
        NodeSummary,
        Receipt,
        Report,
        Series,
        Store,
        StoredPoint,
    )

__all__ = ["NodeLister", "ObservedStore", "watching"]

_LOG = logging.getLogger(__name__)
_TICK_SECONDS: Final = 2.0
# A tick takes a twentieth of a core at most, in pieces that hold nobody up.
_POINTS_A_TICK: Final = 50_000
_POINTS_AT_ONCE: Final = 2_000
_LEDGERS_A_TICK: Final = 20
_ROSTER_SECONDS: Final = 2.0
_MOST_OF_TIME: Final = 0.05
_CPU: Final = "cpu_usage_percent"


class NodeLister(Protocol):
    """Lists the nodes that are registered."""

    def nodes(self, *, revoked: bool = False) -> list[Node]:
        """Every registered node, with ``revoked`` also those that were. Blocks briefly."""
        ...


class ObservedStore:
    """A store whose writes, once durable, are shown to a board."""

    def __init__(self, store: Store, board: LiveMesh) -> None:
        self._store = store
        self._board = board
        self._suspects: set[str] = set()
        self._next: dict[str, tuple[str, int]] = {}

    def suspects(self) -> list[str]:
        """A few nodes whose ledger may have got a loss; each is told once."""
        few = min(len(self._suspects), _LEDGERS_A_TICK)
        return [self._suspects.pop() for _ in range(few)]

    async def write(self, report: Report) -> Receipt:
        """As the store's own; what was a duplicate is old news."""
        receipt = await self._store.write(report)
        self._suspect(report)
        if receipt.accepted:
            self._board.observe(report.node_id, report.points, report.received_at)
        return receipt

    async def ledger(self, node_id: str) -> Ledger:
        """As the store's own."""
        return await self._store.ledger(node_id)

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """As the store's own."""
        return await self._store.latest(node_id)

    async def series(self, query: SeriesQuery) -> Series:
        """As the store's own."""
        return await self._store.series(query)

    async def fleet(self) -> list[NodeSummary]:
        """As the store's own."""
        return await self._store.fleet()

    async def expire(self, now: datetime, keep: timedelta) -> int:
        """As the store's own."""
        return await self._store.expire(now, keep)

    async def check(self) -> None:
        """As the store's own."""
        await self._store.check()

    async def aclose(self) -> None:
        """As the store's own."""
        await self._store.aclose()

    def _suspect(self, report: Report) -> None:
        """Note a node that told of a loss, or whose batch numbers jumped, or may have.

        Of its first batch here nobody knows which one was to come: the store may be an older copy.
        """
        name = report.name
        if name is not None:
            epoch, seq = self._next.get(report.node_id, (name.epoch, 1))
            if name.epoch == epoch and name.seq > seq:
                self._suspects.add(report.node_id)
            self._next[report.node_id] = (name.epoch, name.seq + 1)
        if report.dropped or report.rejected:
            self._suspects.add(report.node_id)


@asynccontextmanager
async def watching(
    store: ObservedStore, board: LiveMesh, lister: NodeLister, clock: Clock
) -> AsyncIterator[None]:
    """While the body runs, feed the live mesh; who is registered is known from the beginning on.

    Raises `RegistryUnavailable` if the nodes cannot be listed at the beginning; later on, the
    nodes listed last are used until they can be listed again.
    """
    await _update_roster(board, lister)
    works = (
        _settle(store, board, clock),
        _follow_roster(board, lister, clock),
        _recall_all(store, board, clock),
    )
    async with in_background(*works):
        yield


async def _update_roster(board: LiveMesh, lister: NodeLister) -> None:
    """Have the live mesh know who is registered, and forget who is not.

    A node that is first heard of while the nodes are listed may be missing in the list.
    """
    heard = set(board.nodes)
    roster = Roster.of(await asyncio.to_thread(lister.nodes, revoked=True))
    board.update_roster(roster)
    board.forget(heard.difference(node.node_id for node in roster.nodes))


async def _follow_roster(board: LiveMesh, lister: NodeLister, clock: Clock) -> None:
    warnings, taken = LogOnce(_LOG, "mesh", clock=clock), 0.0
    while True:
        await clock.sleep(max(_ROSTER_SECONDS, taken / _MOST_OF_TIME))
        began = clock.monotonic()
        try:
            await _update_roster(board, lister)
        except StoreError as err:
            warnings.warn("nodes not listed", "", error=str(err))
        taken = clock.monotonic() - began


async def _settle(store: ObservedStore, board: LiveMesh, clock: Clock) -> None:
    while True:
        await clock.sleep(_TICK_SECONDS)
        for _ in range(min(board.waiting, _POINTS_A_TICK) // _POINTS_AT_ONCE + 1):
            board.settle(_POINTS_AT_ONCE)
            await clock.sleep(0)
        for node_id in store.suspects():
            await _look_up_losses(store, board, node_id)


async def _recall_all(store: Store, board: LiveMesh, clock: Clock) -> None:
    """Node by node, so that reports and questions come in between."""
    for node in board.roster.nodes:
        try:
            await _recall(store, board, node.node_id, clock)
        except StoreError as err:
            _LOG.warning("mesh not recalled", extra={"node_id": node.node_id, "error": str(err)})
            return


async def _recall(store: Store, board: LiveMesh, node_id: str, clock: Clock) -> None:
    points = await store.latest(node_id)
    if points:
        has_reported = node_id in board.nodes and board.nodes[node_id].received_at is not None
        before = [] if has_reported else await _history(store, node_id, clock)
        board.recall(node_id, points, before, clock.now())
    await _look_up_losses(store, board, node_id)


async def _history(store: Store, node_id: str, clock: Clock) -> list[tuple[float, float]]:
    now = clock.now()
    found = await store.series(
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


async def _look_up_losses(store: Store, board: LiveMesh, node_id: str) -> None:
    try:
        board.set_losses(node_id, (await store.ledger(node_id)).losses)
    except StoreError as err:
        _LOG.warning("losses not looked up", extra={"node_id": node_id, "error": str(err)})


if TYPE_CHECKING:
    _: type[Store] = ObservedStore
