"""The port of a store: what the server asks of it, and the values that pass."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec import Raw, Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import (
        AgentStats,
        BatchName,
        LatencyResult,
        MetricPoint,
        Predecessor,
        Receipt,
        SystemStats,
        TunnelStats,
    )


# Fields that only go up, so a series of them is their change per second.
COUNTERS: Final = frozenset(
    {"network_rx_bytes", "network_tx_bytes", "rx_bytes", "tx_bytes", "gc_pause_total_ns"}
)

# Points further ahead of the server's clock are rejected.
HORIZON: Final = timedelta(hours=24)


class Report(Struct, frozen=True):
    """What a node sent: points that are stored all or not at all, or a batch that was rejected.

    Attributes:
        node_id: the node that sent it.
        points: its points.
        received_at: when it arrived.
        name: the names of the points; without them no duplicate is recognized.
        after: what was delivered before the epoch of ``name``.
        dropped: points that the epoch of ``name`` has lost on the node so far.
        ahead: which of the points, by index, are rejected as ahead of the server's clock.
        is_rejected: whether the batch ``name`` was rejected whole and for good, so that the node
            gives it up. Such a report has no points and changes only the ledger.
        address: where it came from.
        body: the JSON that ``points`` were read from, if at hand; it is not encoded again then.
        unknown_keys: how many keys were skipped when it was read, as they are not known.
    """

    node_id: str
    points: Sequence[MetricPoint]
    received_at: datetime
    name: BatchName | None = None
    after: Predecessor | None = None
    dropped: int = 0
    ahead: Sequence[int] = ()
    is_rejected: bool = False
    address: str = ""
    body: bytes = b""
    unknown_keys: int = 0


class Written(NamedTuple):
    """The result of a report: the answer, and which of its points were stored.

    ``is_notable``: whether the node's ledger has something new beside what was received.
    """

    receipt: Receipt
    points: Sequence[MetricPoint] = ()
    is_notable: bool = False


class Loss(Struct, frozen=True, kw_only=True):
    """Points of a node that are missing, and why.

    Attributes:
        reason: ``evicted`` (lost on the node, which reported it), ``rejected`` (by this server),
            ``ahead`` (rejected, as their time stamps were ahead of the server's clock), ``gap``
            (they never came, and the node did not report them), or ``put_back``: nothing is
            missing, but the node does not know of this many points that it sent before.
        since: they were collected after that; None if nobody knows.
        until: they were collected by that.
        noticed_at: when the report arrived that showed it.
        points: how many, as far as it is known.
        detail: why ``since`` is not known, and the number is only the least: ``predecessor
            unknown`` or ``spool begun anew``; empty otherwise.
    """

    reason: str
    since: datetime | None
    until: datetime
    noticed_at: datetime
    points: int
    detail: str = ""


class Branch(Struct, frozen=True, kw_only=True):
    """An epoch of a node of which more may come.

    Attributes:
        epoch: the epoch.
        complete_until: what was collected before that is stored, or among the losses.
        received_at: when something new came of it last.
        address: where that came from.
    """

    epoch: str
    complete_until: datetime | None
    received_at: datetime | None
    address: str


class Ledger(Struct, frozen=True, kw_only=True):
    """A node's account: up to when its points are complete, and what is missing.

    Attributes:
        complete_until: every point that the node collected before this time stamp is stored, or
            among the ``losses``; the least of its ``branches``. None before the first named batch.
        received: points stored under a name.
        duplicates: reports that had been stored before and had no effect.
        evicted: points lost on the node, by its own account, except those rejected here.
        rejected: points rejected here for good.
        gap: points that never came and were not reported as dropped.
        ahead: points rejected because their time stamps were ahead of the clock.
        losses: the latest losses, oldest first; bounded.
        branches: the epochs of which more may come, the latest last; bounded. More than one: the
            node was copied, or was put back to an earlier state.
        machines: the addresses of the machines that report under this identity, if it is certain
            that there are two or more; empty otherwise.
        unknown_keys: keys that were skipped in its reports, as this version does not know them.
    """

    complete_until: datetime | None = None
    received: int = 0
    duplicates: int = 0
    evicted: int = 0
    rejected: int = 0
    gap: int = 0
    ahead: int = 0
    losses: Sequence[Loss] = ()
    branches: Sequence[Branch] = ()
    machines: Sequence[str] = ()
    unknown_keys: int = 0


class StoredPoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A point as it was reported, and when it arrived."""

    timestamp: datetime
    received_at: datetime
    group: str
    peer_id: str = ""
    data: SystemStats | TunnelStats | LatencyResult | AgentStats | Raw


class NodeSummary(Struct, frozen=True):
    """When a node last reported, and its newest system numbers.

    ``received_at`` is None if nothing that it ever reported was stored.
    """

    node_id: str
    received_at: datetime | None
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

    Where the points are gone a bucket is no finer than the rollups of their time: those of five
    minutes are in the bucket in which they begin.

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

    async def write(self, report: Report) -> Written:
        """Return once the points are durable. Cancelling the wait does not undo the write.

        The mark of the report's epoch is stored with the points in one transaction. A report at or
        below the mark is answered as a duplicate and has no effect, for ever; of a report that
        reaches beyond the mark only the part beyond it is stored. A report whose places are those
        of other points than came before is answered as a clash and has no effect.
        """
        ...

    async def ledger(self, node_id: str) -> Ledger:
        """Return the node's ledger; an empty one if the node never reported."""
        ...

    async def latest(self, node_id: str) -> list[StoredPoint]:
        """Return the newest point of each group, and of each peer in the groups that have peers.

        The newest is the one with the newest stamp, and of the same stamp the one that arrived
        last. A stamp does not count if a point that arrived later shows that the node's clock was
        ahead: its own stamp is more than five seconds older, and so is its arrival.

        A group without points in the day before the node's newest point is left out, and so is a
        peer without points in the quarter of an hour before its group's newest point. Of a group,
        the newest points of 10,000 peers are returned at most.
        """
        ...

    async def series(self, query: SeriesQuery) -> Series:
        """Return the fields' values over time."""
        ...

    async def fleet(self) -> list[NodeSummary]:
        """Return every node that ever reported, by id, with when its last report arrived.

        Its system numbers are those of `latest`, however old they are.
        """
        ...

    async def expire(
        self, now: datetime, keep: timedelta, keep_rollups: timedelta | None = None
    ) -> int:
        """Remove the points measured longer than ``keep`` ago, and return their number.

        What a series has of their time comes from rollups then, which are removed after
        ``keep_rollups``, None: never. A store without rollups has no series of that time.

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
