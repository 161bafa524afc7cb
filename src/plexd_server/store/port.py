"""What the server asks of a store; nothing here knows how points are kept."""

from __future__ import annotations

from datetime import datetime, timedelta  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import (
        AgentStats,
        BatchName,
        LatencyResult,
        MetricPoint,
        SystemStats,
        TunnelStats,
    )

__all__ = [
    "Ledger",
    "Loss",
    "NodeSummary",
    "Receipt",
    "Report",
    "Series",
    "SeriesQuery",
    "Store",
    "StoredPoint",
]


class Report(Struct, frozen=True):
    """Points that are kept all or not at all, or, in ``rejected``, of which none is.

    ``name`` says which sealed batch of the node, and which part of it, this is; without one
    nothing is known to be a duplicate. ``dropped`` points were lost on the node ahead of it.
    ``rejected`` points of the batch ``name`` were refused with a reason that stands, so that the
    node will give them up: such a report has no points and is noted in the ledger only. ``body``
    is the JSON that ``points`` were read from, if it is at hand, which spares making it again.
    """

    node_id: str
    points: Sequence[MetricPoint]
    received_at: datetime
    name: BatchName | None = None
    dropped: int = 0
    rejected: int = 0
    body: bytes = b""


class Receipt(Struct, frozen=True):
    """What became of a report: ``accepted`` points are durable."""

    accepted: int
    duplicate: bool = False


class Loss(Struct, frozen=True, kw_only=True):
    """Points of a node that are missing, and why.

    They were collected after ``since`` (None: since the node's beginning) and by ``until``.
    ``reason`` is ``evicted`` (lost on the node, which told so), ``rejected`` (refused by this
    server) or ``gap`` (``batches`` sealed batches never came and nobody told why; how many
    points they held is not known, and ``points`` is 0).
    """

    reason: str
    since: datetime | None
    until: datetime
    noticed_at: datetime
    points: int
    batches: int


class Ledger(Struct, frozen=True, kw_only=True):
    """What is known of a node's points: complete up to when, but for which losses.

    Attributes:
        complete_until: the newest time stamp up to which every point that the node collected is
            stored, or among the ``losses``; None before the first named batch.
        received: points stored under a batch's name.
        duplicates: reports that had been stored before and had no effect.
        evicted: points lost on the node, by its own account, but for those rejected here.
        rejected: points refused here for good.
        gap_batches: batches that never came, and nobody told why.
        losses: the latest, oldest first; bounded.
    """

    complete_until: datetime | None = None
    received: int = 0
    duplicates: int = 0
    evicted: int = 0
    rejected: int = 0
    gap_batches: int = 0
    losses: Sequence[Loss] = ()


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

    async def write(self, report: Report) -> Receipt:
        """Return once the points are durable. Cancelling the wait does not undo the write.

        For each node and epoch the highest batch number, and how much of that batch came, is
        kept with the points, in one transaction: a report at or below that mark is answered as
        a duplicate and has no effect, for ever; of one that reaches beyond it in part only the
        part beyond is stored.
        """
        ...

    async def ledger(self, node_id: str) -> Ledger:
        """What is missing of the node's points; an empty ledger for a node that never reported."""
        ...

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """The newest point of each group, and of each peer in the groups that have peers.

        A group without points in the day before the node's newest, or a peer without any in the
        quarter of an hour before its group's newest, is not there any more.
        """
        ...

    async def series(self, query: SeriesQuery) -> Series:
        """How fields went over time."""
        ...

    async def fleet(self) -> list[NodeSummary]:
        """Every node that ever reported, by id."""
        ...

    async def expire(self, now: datetime, keep: timedelta) -> int:
        """Remove what was measured longer than ``keep`` ago; how many points.

        Ago is before ``now`` or the newest measurement, whichever is older: a clock of the server
        that is wrong removes nothing by itself. What a node's ledger counts stays counted.
        """
        ...

    async def check(self) -> None:
        """Return if the store can write and read; raise if not."""
        ...

    async def aclose(self) -> None:
        """Finish the writes that were accepted, then close. May be called again."""
        ...
