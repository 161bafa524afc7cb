"""Where points wait between their collection and their delivery.

Life of a point: appended with its collection, sealed into a batch, delivered with it as the head,
forgotten when that batch is acknowledged. Whatever else happens to it is counted in
`SpoolStatistics`, so that at any time

    appended = buffered + sealed + acknowledged + refused + evicted
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import BatchName, MetricBatch, MetricPoint

__all__ = ["Spool", "SpoolStatistics"]


class SpoolStatistics(Struct, frozen=True):
    """A snapshot of one spool; the first four are counts since it was opened.

    Attributes:
        appended: points taken in.
        acknowledged: points delivered and forgotten.
        refused: points given up because the control plane will never take them.
        evicted: points dropped, oldest first, because a bound was reached.
        buffered: points not yet part of a batch.
        sealed: points in batches that wait for delivery.
        batches: batches that wait for delivery.
    """

    appended: int
    acknowledged: int
    refused: int
    evicted: int
    buffered: int
    sealed: int
    batches: int


class Spool(Protocol):
    """A bounded queue of points with frozen batches at its head.

    One task appends at a time per collector and one delivers; calls may interleave. A spool is
    an async context manager in all implementations, closed by whoever made it.
    """

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Take in one collection, whole or not at all; on return it is as safe as it gets here."""
        ...

    async def seal(self, limit: int) -> None:
        """Freeze all buffered points, in order, into batches of at most ``limit`` points."""
        ...

    async def head(self) -> MetricBatch | None:
        """The oldest sealed batch; the same points, name and bytes until it is settled."""
        ...

    async def acknowledge(self, name: BatchName, *, refused: int = 0) -> None:
        """The head called ``name`` is settled: forget it. Any other name is ignored.

        ``refused`` of its points were not accepted and never will be.
        """
        ...

    def statistics(self) -> SpoolStatistics:
        """How much waits here, and what became of the rest."""
        ...

    async def aclose(self) -> None:
        """Release what is held; idempotent."""
        ...
