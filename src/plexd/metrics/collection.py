"""One collection: a collector's points, whatever the collector does.

What a collector yields is not trusted: points are checked as a receiver would check them, and
those it would reject are dropped here, so that one bad point never costs a batch.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from plexd.api import EncodeError, MetricPoint, check_points
from plexd.background import cut
from plexd.metrics.errors import CollectError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plexd.clock import Clock
    from plexd.metrics.ports import Collector

# Ten times the largest mesh this is built for; a collector with more is out of control.
MOST_POINTS = 100_000
# Points checked between two turns of the event loop: about a millisecond.
_CHUNK = 1000


class Collection:
    """One run of one collector, cut at a deadline.

    `run` returns within the deadline plus a second even if the collector ignores its
    cancellation. Such a collector is left running, `is_stuck` is true, and what it yields from
    then on is ignored.
    """

    def __init__(self, collector: Collector, clock: Clock) -> None:
        self._collector = collector
        self._clock = clock
        self._yielded: list[MetricPoint] = []
        # Not in a task group, which could not return while the collector refuses to end.
        self._task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether the collector is still running."""
        return self._task is not None and not self._task.done()

    async def run(self, deadline_seconds: float) -> None:
        """Run the collector. What went wrong is in ``error``; when cancelled, cut and raise."""
        self._task = asyncio.create_task(self._drain(), name="collect")
        try:
            async with self._clock.timeout(deadline_seconds):
                await asyncio.wait([self._task])
        except TimeoutError:
            await cut(self._task, self._clock)
            self.error = CollectError(f"cut after {deadline_seconds:g}s")
        except asyncio.CancelledError:
            await cut(self._task, self._clock)
            raise
        else:
            self.error = _outcome(self._task)

    async def _drain(self) -> None:
        iterator: AsyncIterator[MetricPoint] = self._collector.collect()
        async with _closing(iterator):
            async for point in iterator:
                self._yielded.append(point)
                if len(self._yielded) > MOST_POINTS:
                    raise CollectError(f"more than {MOST_POINTS} points in one collection")

    async def points(self) -> tuple[list[MetricPoint], int]:
        """The points fit to be sent and the number dropped; the first reason is in ``error``."""
        yielded, self._yielded = self._yielded[:MOST_POINTS], []
        good: list[MetricPoint] = []
        for start in range(0, len(yielded), _CHUNK):
            if start:
                await asyncio.sleep(0)
            good += self._fit(yielded[start : start + _CHUNK], start)
        return good, len(yielded) - len(good)

    def _fit(self, chunk: list[MetricPoint], start: int) -> list[MetricPoint]:
        try:
            check_points(chunk)
        except EncodeError:
            return [p for i, p in enumerate(chunk, start) if self._is_fit(i, p)]
        return chunk

    def _is_fit(self, index: int, point: MetricPoint) -> bool:
        try:
            check_points([point])
        except EncodeError as err:
            self.error = self.error or EncodeError(err.reason, index=index, field=err.field)
            return False
        return True


def _closing(iterator: Any) -> AbstractAsyncContextManager[object]:
    """Closes a generator at the end; an iterator without ``aclose`` has nothing to close."""
    return aclosing(iterator) if hasattr(iterator, "aclose") else nullcontext()


def _outcome(task: asyncio.Task[None]) -> BaseException | None:
    """The error of a collector that was not cut."""
    if task.cancelled():
        return CollectError("the collector cancelled itself")
    return task.exception()
