"""A control plane's memory: what was delivered under which name, with checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import is_continuation

if TYPE_CHECKING:
    from plexd.api import BatchName, MetricBatch, MetricPoint, Predecessor
    from plexd.spool import Spool

__all__ = ["StrictReceiver"]


class _Epoch:
    """What was received of one epoch."""

    def __init__(self) -> None:
        self.upto = 0
        self.missing = 0
        self.dropped = 0
        self.before = 0

    @property
    def lost(self) -> int:
        return max(self.missing, self.dropped) + self.before


class StrictReceiver:
    """Accepts batches as the server does, and fails the test for what a spool must never do.

    A name always means the same point; no point comes under two names; within an epoch places go
    up; an epoch comes after one that is known.
    """

    def __init__(self) -> None:
        # After damage nobody knows what was delivered before.
        self.is_lenient = False
        self.points: dict[str, MetricPoint] = {}
        self._names: dict[tuple[str, int], MetricPoint] = {}
        self._epochs: dict[str, _Epoch] = {}

    @property
    def lost(self) -> int:
        """Points that are missing, as far as the batches received show it."""
        return sum(epoch.lost for epoch in self._epochs.values())

    def accept(self, batch: MetricBatch) -> BatchName:
        """Accept ``batch``; what was received before has no effect."""
        name = batch.name
        assert name is not None
        assert batch.after is not None
        assert len(batch) == name.points
        if name.epoch not in self._epochs:
            self._begin(name, batch.after)
        epoch = self._epochs[name.epoch]
        epoch.missing += max(0, name.first - epoch.upto - 1)
        epoch.dropped = max(epoch.dropped, batch.dropped)
        for place, point in enumerate(batch, name.first):
            self._accept_point(name.epoch, place, point, is_known=place <= epoch.upto)
        epoch.upto = max(epoch.upto, name.last)
        return name

    def _begin(self, name: BatchName, after: Predecessor) -> None:
        begun = self._epochs[name.epoch] = _Epoch()
        before = self._epochs.get(after.epoch)
        if after.epoch and not self.is_lenient:
            assert before is not None, f"{after} is unknown"
            assert before.upto <= after.place, f"{after} is behind what came"
        if before is not None and is_continuation(name.epoch, after.epoch):
            begun.upto = after.place
            begun.before = max(0, after.skipped - (name.first - 1 - after.place))
        else:
            lacking = after.place - before.upto if before is not None else 0
            begun.before = after.skipped + max(0, lacking)

    def _accept_point(self, epoch: str, place: int, point: MetricPoint, *, is_known: bool) -> None:
        if is_known:
            assert self._names.get((epoch, place)) == point, f"{epoch}:{place} was something else"
        else:
            assert point.peer_id not in self.points, f"{point.peer_id} comes twice"
            self.points[point.peer_id] = self._names[epoch, place] = point

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
