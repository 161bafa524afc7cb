"""The port of a store: what the server asks of it, and the values that pass."""

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


class Report(Struct, frozen=True):
    """What a node sent: points that are stored all or not at all, or rejected points.

    Attributes:
        node_id: the node that sent it.
        points: its points.
        received_at: when it arrived.
        name: the sealed batch of the node, and the part of it, that this is; without a name no
            duplicate is recognized.
        dropped: points that the node lost before this batch.
        rejected: points of the batch ``name`` that were rejected for good, so that the node gives
            them up. Such a report has no points and changes only the ledger.
        body: the JSON that ``points`` were read from, if at hand; it is not encoded again then.
    """

    node_id: str
    points: Sequence[MetricPoint]
    received_at: datetime
    name: BatchName | None = None
    dropped: int = 0
    rejected: int = 0
    body: bytes = b""


class Receipt(Struct, frozen=True):
    """The result of a report: ``accepted`` points are durable."""

    accepted: int
    duplicate: bool = False


class Loss(Struct, frozen=True, kw_only=True):
    """Points of a node that are missing, and why.

    They were collected after ``since`` (None: since the node's beginning) and by ``until``.
    ``reason`` is ``evicted`` (lost on the node, which reported it), ``rejected`` (by this server)
    or ``gap`` (``batches`` sealed batches never came and were not reported as dropped; nobody knows
    how many points they held, and ``points`` is 0).
    """

    reason: str
    since: datetime | None
    until: datetime
    noticed_at: datetime
    points: int
    batches: int


class Ledger(Struct, frozen=True, kw_only=True):
    """A node's account: up to when its points are complete, and what is missing.

    Attributes:
        complete_until: the newest time stamp up to which every point that the node collected is
            stored, or among the ``losses``; None before the first named batch.
        received: points stored under a batch's name.
        duplicates: reports that had been stored before and had no effect.
        evicted: points lost on the node, by its own account, except those rejected here.
        rejected: points rejected here for good.
        gap_batches: batches that never came and were not reported as dropped.
        losses: the latest losses, oldest first; bounded.
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
    """When a node last reported, and its newest system numbers."""

    node_id: str
    received_at: datetime
    system: StoredPoint | None = None


class SeriesQuery(Struct, frozen=True):
    """Some fields of one group over ``[since, until)``, in buckets of ``step``.

    ``rates`` names the fields that are counters: the series has their change per second.
    """

    node_id: str
    group: str
    fields: tuple[str, ...]
    rates: frozenset[str]
    since: datetime
    until: datetime
    step: timedelta
    peer_id: str = ""


class Gap(Struct, frozen=True):
    """A time without readings: from the last one before it to the first one after it."""

    since: datetime
    until: datetime


class Series(Struct, frozen=True):
    """The non-empty buckets in order of time, with the mean, minimum and maximum of each field.

    The mean of a rate is weighted by time. The first one of a range is that since the reading
    before the range, if that is at most a day older. A bucket in which a field has no value holds
    None: a counter has no rate before its first reading, while it was reset, and while the node's
    clock was set.

    ``gaps`` are the times between two readings that are longer than a bucket, and than two and a
    half of the usual ones thereabouts. The first may begin before the range; what follows the last
    reading is none.
    """

    times: list[datetime]
    avg: dict[str, list[float | None]]
    min: dict[str, list[float | None]]
    max: dict[str, list[float | None]]
    gaps: list[Gap] = []


class Store(Protocol):
    """A store of points that answers queries. It raises `StoreError` when it cannot."""

    async def write(self, report: Report) -> Receipt:
        """Return once the points are durable. Cancelling the wait does not undo the write.

        For each node and epoch the highest batch number, and how much of that batch came, is
        stored with the points in one transaction. A report at or below that mark is answered as a
        duplicate and has no effect, for ever; of a report that reaches beyond the mark only the
        part beyond it is stored.
        """
        ...

    async def ledger(self, node_id: str) -> Ledger:
        """Return the node's ledger; an empty one if the node never reported."""
        ...

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """Return the newest point of each group, and of each peer in the groups that have peers.

        A group without points in the day before the node's newest point is left out, and so is a
        peer without points in the quarter of an hour before its group's newest point.
        """
        ...

    async def series(self, query: SeriesQuery) -> Series:
        """Return the fields' values over time."""
        ...

    async def fleet(self) -> list[NodeSummary]:
        """Return every node that ever reported, by id."""
        ...

    async def expire(self, now: datetime, keep: timedelta) -> int:
        """Remove the points measured longer than ``keep`` ago, and return their number.

        The age is counted from ``now`` or the newest measurement, whichever is older, so that a
        wrong clock of the server alone removes nothing. The ledgers still count removed points.
        """
        ...

    async def check(self) -> None:
        """Return if the store can write and read; raise if not."""
        ...

    async def aclose(self) -> None:
        """Finish the writes that were accepted, then close. May be called again."""
        ...
