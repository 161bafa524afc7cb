"""A control plane's memory: what was delivered under which name, with checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.api import BatchName, MetricBatch, MetricPoint
    from plexd.spool import Spool

__all__ = ["StrictReceiver"]


class StrictReceiver:
    """Accepts batches as the server does, and fails the test for what a spool must never do.

    A name always has the same bytes and counts once; no point comes under two names; within an
    epoch numbers go up.
    """

    def __init__(self) -> None:
        # After damage a batch may come again with another loss, but with the same points.
        self.is_lenient = False
        self.points: dict[str, MetricPoint] = {}
        self.told = 0
        self._bodies: dict[tuple[str, int], tuple[bytes, int]] = {}
        self._marks: dict[str, int] = {}

    def take(self, batch: MetricBatch) -> BatchName:
        """Accept ``batch``; a repetition has no effect."""
        name = batch.name
        assert name is not None
        key = (name.epoch, name.seq)
        content = (batch.to_json(), batch.dropped)
        if key in self._bodies:
            body, dropped = self._bodies[key]
            assert body == content[0], f"{name} was something else"
            assert self.is_lenient or dropped == batch.dropped, f"{name} told of another loss"
            return name
        assert name.seq > self._marks.get(name.epoch, 0), f"{name} comes too late to be taken"
        self._marks[name.epoch] = name.seq
        self._bodies[key] = content
        self.told += batch.dropped
        assert len(batch) == name.of
        self._take(batch)
        return name

    def take_part(self, batch: MetricBatch, count: int) -> None:
        """Accept the first ``count`` points and refuse the others; 0 reports no loss either."""
        if count:
            self.told += batch.dropped
        self._take(batch[:count])

    def has(self, batch: MetricBatch) -> bool:
        """Whether this batch was accepted before."""
        name = batch.name
        return name is not None and (name.epoch, name.seq) in self._bodies

    def _take(self, points: Iterable[MetricPoint]) -> None:
        for point in points:
            assert point.peer_id not in self.points, f"{point.peer_id} comes twice"
            self.points[point.peer_id] = point

    async def drain(self, spool: Spool, most: int = 10**9) -> None:
        """Accept and acknowledge the batches at the head, at most ``most`` of them."""
        for _ in range(most):
            batch = await spool.head()
            if batch is None:
                return
            await spool.acknowledge(self.take(batch))
