"""Where points wait between their collection and their delivery.

Life of a point: appended with its collection, sealed into a batch, delivered with it as the head,
forgotten when that batch is acknowledged. Whatever else happens to the point is
counted in `SpoolStatistics`, so that at any time

    appended = buffered + sealed + acknowledged + refused + evicted + expired + damaged
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import BatchName, MetricBatch, MetricPoint


class SpoolStatistics(Struct, frozen=True, kw_only=True):
    """A snapshot of one spool; counts are of points since the spool was made.

    Attributes:
        appended: accepted by `Spool.append`.
        acknowledged: delivered and forgotten.
        refused: given up because the control plane will never accept them.
        evicted: dropped, oldest first, because the spool was full.
        expired: dropped because they had waited longer than the maximum age.
        damaged: lost to a fault of the disk, or of the file.
        buffered: not yet part of a batch.
        sealed: in batches that wait for delivery.
        batches: batches that wait for delivery.
        stored_bytes: about what the waiting points take up.
        oldest_seconds: how long the oldest waiting point has waited; 0 when none does.
        dead_letters: refused batches, or pieces of them, that are kept for the operator to look at.
        degraded: why points are not as safe as they should be; empty when all is well.
    """

    appended: int = 0
    acknowledged: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0
    damaged: int = 0
    buffered: int = 0
    sealed: int = 0
    batches: int = 0
    stored_bytes: int = 0
    oldest_seconds: float = 0.0
    dead_letters: int = 0
    degraded: str = ""

    @property
    def lost(self) -> int:
        """Points that were appended and will never be delivered."""
        return self.refused + self.evicted + self.expired + self.damaged

    @property
    def waiting(self) -> int:
        """Points that are still to be delivered."""
        return self.buffered + self.sealed


class Refusal(Struct, frozen=True):
    """A sealed batch, or a piece of one, that the control plane will never accept, and why."""

    batch: MetricBatch
    reason: str


class Spool(Protocol):
    """A bounded queue of points with frozen batches at its head.

    One task appends at a time per collector and one delivers; calls may interleave. A spool is
    an async context manager in all implementations, closed by whatever opened it. A fault of the
    storage is never raised: it is reported in `statistics`.
    """

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Add one collection, whole or not at all; on return it is as safe as this spool makes it.

        Raises `EncodeError` for points that have no JSON.
        """
        ...

    async def seal(self, limit: int) -> None:
        """Freeze all buffered points, in order, into batches of at most ``limit`` points."""
        ...

    async def head(self) -> MetricBatch | None:
        """Return the oldest sealed batch; the same points, name and bytes until acknowledged.

        Its ``dropped`` are the points lost before it that no batch has reported yet.
        """
        ...

    async def acknowledge(self, name: BatchName, *, refused: Sequence[Refusal] = ()) -> None:
        """Forget the head if it is called ``name``; ignore any other name.

        The part in ``refused`` was not accepted and never will be; it is kept among the newest dead
        letters and reported as a loss with the next batch. After a head that was refused whole,
        the losses before it are reported again.
        """
        ...

    async def dead_letters(self) -> Sequence[Refusal]:
        """Return what was refused, oldest first; bounded, the oldest are deleted."""
        ...

    def statistics(self) -> SpoolStatistics:
        """Return how much waits here, and what became of the rest."""
        ...

    async def aclose(self) -> None:
        """Release what is held; idempotent."""
        ...
