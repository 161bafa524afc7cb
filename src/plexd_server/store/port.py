"""What the server asks of a store; nothing here knows how points are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from plexd.api import AgentStats, LatencyResult, MetricPoint, SystemStats, TunnelStats

__all__ = ["Delivery", "NodeSummary", "Receipt", "Series", "SeriesQuery", "Store", "StoredPoint"]


class Delivery(Struct, frozen=True):
    """Points that are kept all or not at all."""

    node_id: str
    points: Sequence[MetricPoint]
    received_at: datetime


class Receipt(Struct, frozen=True):
    """What became of a delivery: ``accepted`` points are durable."""

    accepted: int
    duplicate: bool = False


class StoredPoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A point as it was reported, and when it arrived."""

    timestamp: datetime
    received_at: datetime
    group: str
    peer_id: str = ""
    data: SystemStats | TunnelStats | LatencyResult | AgentStats


class NodeSummary(Struct, frozen=True):
    """A node's newest sign of life and its newest system numbers."""

    node_id: str
    received_at: datetime
    system: StoredPoint | None = None


class SeriesQuery(Struct, frozen=True):
    """Some fields of one group over ``[since, until)``, in buckets of ``step``.

    ``rates`` names the fields that are counters: they are asked for as change per second.
    """

    node_id: str
    group: str
    fields: tuple[str, ...]
    rates: frozenset[str]
    since: datetime
    until: datetime
    step: timedelta
    peer_id: str = ""


class Series(Struct, frozen=True):
    """The non-empty buckets in order of time, and each field's mean, least and greatest in them.

    A bucket in which a field has no value holds None: a counter's first reading and the interval
    in which it was reset have no rate.
    """

    times: list[datetime]
    avg: dict[str, list[float | None]]
    min: dict[str, list[float | None]]
    max: dict[str, list[float | None]]


class Store(Protocol):
    """Keeps points and answers questions about them. Raises `StoreError` when it cannot."""

    async def write(self, delivery: Delivery) -> Receipt:
        """Return once the points are durable. Cancelling the wait does not undo the write."""
        ...

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """The newest point of each group, and of each peer in the groups that have peers."""
        ...

    async def series(self, query: SeriesQuery) -> Series:
        """How fields went over time."""
        ...

    async def fleet(self) -> list[NodeSummary]:
        """Every node that ever reported, by id."""
        ...

    async def check(self) -> None:
        """Return if the store can write and read; raise if not."""
        ...

    async def aclose(self) -> None:
        """Finish the writes that were accepted, then close. May be called again."""
        ...
