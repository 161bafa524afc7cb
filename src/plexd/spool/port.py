"""Where points wait between their collection and their delivery.

Life of a point: named and appended with its collection, delivered with a batch from the head,
forgotten when that batch is acknowledged. Whatever else happens to the point is counted in
`SpoolStatistics`, so that at any time

    appended = waiting + acknowledged + refused + evicted + expired + damaged + clashed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from plexd.api import BatchName, MetricBatch, MetricPoint

# Reasons why points are lost on the node, as `SpoolStatistics` names them.
LOSSES: Final = ("refused", "evicted", "expired", "damaged", "clashed")


class SpoolStatistics(Struct, frozen=True, kw_only=True):
    """A snapshot of one spool; counts are of points since the spool was made.

    Attributes:
        appended: accepted by `Spool.append`.
        acknowledged: delivered and forgotten.
        refused: given up because the control plane will never accept them.
        evicted: dropped, oldest first, because the spool was full.
        expired: dropped because they had waited longer than the maximum age.
        damaged: lost to a fault of the disk, or of the file.
        clashed: given up because another machine sent other points under their names.
        waiting: still to be delivered.
        stored_bytes: about what the waiting points take up.
        oldest_seconds: how long the oldest waiting point has waited; 0 when none does.
        dead_letters: refused batches that are kept for the operator to look at.
        degraded: why points are not as safe as they should be; empty when all is well.
    """

    appended: int = 0
    acknowledged: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0
    damaged: int = 0
    clashed: int = 0
    waiting: int = 0
    stored_bytes: int = 0
    oldest_seconds: float = 0.0
    dead_letters: int = 0
    degraded: str = ""

    @property
    def lost(self) -> int:
        """Points that were appended and will never be delivered."""
        return self.refused + self.evicted + self.expired + self.damaged + self.clashed


class Refusal(Struct, frozen=True):
    """A batch that the control plane will never accept, and why."""

    batch: MetricBatch
    reason: str


class Spool(Protocol):
    """A bounded log of named points, read from its oldest end.

    One task appends at a time per collector and one delivers; calls may interleave. A spool is
    an async context manager in all implementations, closed by whatever opened it. A fault of the
    storage is never raised: it is reported in `statistics`.
    """

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Name and add one collection, whole or not at all.

        On return it is as safe as this spool makes it. Raises `EncodeError` for points that have
        no JSON.
        """
        ...

    async def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points with consecutive places of one epoch, at most ``limit``.

        Its ``dropped`` and ``after`` are what the delivery contract has with it. The four groups
        of the specification never share a batch with others.
        """
        ...

    async def acknowledge(self, name: BatchName) -> None:
        """Forget the points called ``name``; ignore a name that is not at the head (any more)."""
        ...

    async def set_aside(self, refusal: Refusal) -> None:
        """Give up a batch at the head that will never be accepted.

        It is counted, and kept among the newest dead letters.
        """
        ...

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        """Find other names for what waits under the epoch of ``name``: they are another machine's.

        Points beyond the place ``upto``, or newer than ``newest``, keep their places in another
        epoch; the others are given up. What is appended from now on gets a new epoch.
        """
        ...

    async def dead_letters(self) -> Sequence[Refusal]:
        """Return what was set aside, oldest first; bounded, the oldest are deleted."""
        ...

    def statistics(self) -> SpoolStatistics:
        """Return how much waits here, and what became of the rest."""
        ...

    async def aclose(self) -> None:
        """Release what is held; idempotent."""
        ...
