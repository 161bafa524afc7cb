"""A spool that lives and dies with the process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from plexd.api import BatchName, MetricBatch, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.spool.chain import Chain
from plexd.spool.epoch import StepWatch, new_epoch
from plexd.spool.port import LOSSES, Refusal, Spool, SpoolStatistics
from plexd.spool.runs import split_by_kind, split_by_survival

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime


# A point as objects plus its JSON, measured over the four groups; the bound need not be exact.
_BYTES_PER_POINT = 400
_MOST_DEAD_LETTERS = 16


class _Run(Struct):
    """Points of one kind under consecutive places of ``epoch`` from ``first`` on."""

    epoch: str
    first: int
    kind: int
    points: list[MetricPoint]
    arrived: float

    @property
    def last(self) -> int:
        return self.first + len(self.points) - 1

    def cut(self, count: int) -> None:
        """Remove the first points."""
        del self.points[:count]
        self.first += count


class MemorySpool(AsyncClosing):
    """Keeps at most about ``max_bytes`` of points; beyond that the oldest are evicted.

    Nothing survives the process. 16 MiB hold some 40,000 points: over an hour at 100 peers.
    """

    def __init__(self, *, max_bytes: int = 16 * 1024 * 1024, clock: Clock | None = None) -> None:
        self._max_points = max(1, max_bytes // _BYTES_PER_POINT)
        self._clock = clock or SystemClock()
        self._steps = StepWatch(self._clock)
        self._chain = Chain(epoch=new_epoch(self._clock))
        self._runs: deque[_Run] = deque()
        self._counts = dict.fromkeys(("appended", "acknowledged", *LOSSES), 0)
        # The batch that was handed out last, and how much of it was evicted since.
        self._under_way: MetricBatch | None = None
        self._overtaken = 0
        self._dead_letters: deque[Refusal] = deque(maxlen=_MOST_DEAD_LETTERS)

    @property
    def _waiting(self) -> int:
        counts = self._counts
        return counts["appended"] - counts["acknowledged"] - sum(counts[name] for name in LOSSES)

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Add one collection, evicting the oldest points if it does not fit."""
        self._watch_clocks()
        for kind, run in split_by_kind(points):
            first = self._chain.append(len(run)) - len(run) + 1
            self._runs.append(_Run(self._chain.epoch, first, kind, run, self._clock.monotonic()))
            self._counts["appended"] += len(run)
        self._evict(self._waiting - self._max_points)

    def _watch_clocks(self) -> None:
        if self._steps.has_stepped():
            self._chain.begin(new_epoch(self._clock))

    def _evict(self, excess: int) -> None:
        while excess > 0:
            run = self._runs[0]
            self._chain.reach(run.epoch)
            count = min(excess, len(run.points))
            self._overtake(run.first, run.first + count - 1)
            self._chain.drop(run.first + count - 1, count)
            self._counts["evicted"] += count
            self._cut(count)
            excess -= count

    def _cut(self, count: int) -> None:
        self._runs[0].cut(count)
        if not self._runs[0].points:
            self._runs.popleft()

    def _overtake(self, first: int, last: int) -> None:
        name = self._under_way.name if self._under_way is not None else None
        if name is not None and name.epoch == self._chain.sent_as:
            self._overtaken += max(0, min(name.last, last) - max(name.first, first) + 1)

    async def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points."""
        self._watch_clocks()
        self._under_way, self._overtaken = None, 0
        points = list(self._first(limit))
        if points:
            chain = self._chain
            name = BatchName(chain.sent_as, self._runs[0].first, len(points))
            after, dropped = chain.predecessor, chain.dropped
            self._under_way = MetricBatch(points, name=name, dropped=dropped, after=after)
        return self._under_way

    def _first(self, limit: int) -> Iterator[MetricPoint]:
        if not self._runs:
            return
        before = self._runs[0]
        self._chain.reach(before.epoch)
        for run in self._runs:
            continues = (run.epoch, run.kind, run.first) == (
                before.epoch,
                before.kind,
                before.last + 1,
            )
            if limit <= 0 or not (run is before or continues):
                return
            yield from run.points[:limit]
            limit -= len(run.points)
            before = run

    async def acknowledge(self, name: BatchName) -> None:
        if self._under_way is not None and self._under_way.name == name and self._overtaken:
            self._find_again(name, self._under_way)
        if self._is_ahead(name):
            self._counts["acknowledged"] += self._take_out(name)
            reported = self._under_way.dropped if self._under_way is not None else 0
            self._chain.acknowledge(name.last, reported)
        self._under_way, self._overtaken = None, 0

    def _find_again(self, name: BatchName, batch: MetricBatch) -> None:
        self._counts["evicted"] -= self._overtaken
        self._counts["acknowledged"] += self._overtaken
        skipped = batch.after.skipped if batch.after is not None else 0
        self._chain.find_again(name, self._overtaken, skipped)

    def _is_ahead(self, name: BatchName) -> bool:
        if self._runs:
            self._chain.reach(self._runs[0].epoch)
        return name.epoch == self._chain.sent_as and self._chain.passed < name.last

    def _take_out(self, name: BatchName) -> int:
        count = 0
        while self._runs and self._runs[0].epoch == self._chain.head:
            leaving = min(len(self._runs[0].points), name.last - self._runs[0].first + 1)
            if leaving <= 0:
                break
            self._cut(leaving)
            count += leaving
        return count

    async def set_aside(self, refusal: Refusal) -> None:
        """Give up a batch; the last sixteen are kept."""
        name = refusal.batch.name
        if name is not None and self._is_ahead(name):
            count = self._take_out(name)
            self._counts["refused"] += count
            self._chain.drop(name.last, count)
            self._dead_letters.append(refusal)

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        if not self._is_ahead(name):
            return
        chain = self._chain
        head = [run for run in self._runs if run.epoch == chain.head]
        rest = [run for run in self._runs if run.epoch != chain.head]
        kept = [part for run in head for part in _survivors(run, upto, newest)]
        self._runs = deque(kept + rest)
        lost = sum(len(run.points) for run in head) - sum(len(part.points) for part in kept)
        self._counts["clashed"] += lost
        chain.rename(newest, kept[0].first - 1 - chain.passed if kept else lost)
        chain.begin(new_epoch(self._clock))

    async def dead_letters(self) -> Sequence[Refusal]:
        return tuple(self._dead_letters)

    def statistics(self) -> SpoolStatistics:
        """Return counts since this spool was made."""
        waiting = self._waiting
        counts: dict[str, Any] = dict(self._counts)
        return SpoolStatistics(
            **counts,
            waiting=waiting,
            stored_bytes=waiting * _BYTES_PER_POINT,
            oldest_seconds=self._clock.monotonic() - self._runs[0].arrived if self._runs else 0.0,
            dead_letters=len(self._dead_letters),
        )

    async def aclose(self) -> None:
        pass  # nothing is held outside the process


def _survivors(run: _Run, upto: int, newest: datetime) -> Iterator[_Run]:
    stamps = [point.timestamp for point in run.points]
    start = 0
    for survives, count in split_by_survival(run.first, stamps, upto, newest):
        if survives:
            points = run.points[start : start + count]
            yield _Run(run.epoch, run.first + start, run.kind, points, run.arrived)
        start += count


if TYPE_CHECKING:
    _: type[Spool] = MemorySpool
