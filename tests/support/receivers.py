"""A control plane's memory: what was delivered under which name, with checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.marks import Marks

if TYPE_CHECKING:
    from plexd.api import BatchName, MetricBatch, MetricPoint
    from plexd.spool import Spool

__all__ = ["StrictReceiver"]


class StrictReceiver:
    """Accepts batches as the server does, and fails the test for what a spool must never do.

    A name always means the same point; no point comes under two names; within an epoch places go
    up; an epoch comes after one that is known.
    """

    def __init__(self) -> None:
        self.marks = Marks()
        self.points: dict[str, MetricPoint] = {}
        self._names: dict[tuple[str, int], MetricPoint] = {}

    @property
    def lost(self) -> int:
        """Points that are missing, as far as the batches received show it."""
        return self.marks.lost

    def accept(self, batch: MetricBatch) -> BatchName:
        """Accept ``batch``; what was received before has no effect."""
        name = batch.name
        assert name is not None
        assert batch.after is not None
        assert len(batch) == name.points
        known = self.marks.receive(name, batch.after, batch.dropped)
        for index, point in enumerate(batch):
            key = (name.epoch, name.first + index)
            if index < known:
                assert self._names.get(key) == point, f"{key} was something else"
            else:
                assert point.peer_id not in self.points, f"{point.peer_id} comes twice"
                self.points[point.peer_id] = self._names[key] = point
        return name

    def reject(self, batch: MetricBatch) -> None:
        """Refuse ``batch`` for good."""
        assert batch.name is not None
        assert batch.after is not None
        self.marks.reject(batch.name, batch.after, batch.dropped)

    def has(self, batch: MetricBatch) -> bool:
        """Whether the end of this batch was accepted before."""
        name = batch.name
        return name is not None and (name.epoch, name.last) in self._names

    async def drain(self, spool: Spool, most: int = 10**9, *, limit: int = 100) -> None:
        """Accept and acknowledge the batches at the head, at most ``most`` of them."""
        for _ in range(most):
            batch = await spool.head(limit)
            if batch is None:
                return
            await spool.acknowledge(self.accept(batch))
