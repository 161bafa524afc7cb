"""A spool that lives and dies with the process."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING

from plexd.api import BatchName, MetricBatch, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.spool.port import Refusal, Spool, SpoolStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence


# A point as objects plus its JSON, measured over the four groups; the bound need not be exact.
_BYTES_PER_POINT = 400
_MOST_DEAD_LETTERS = 16


class MemorySpool(AsyncClosing):
    """Keeps at most about ``max_bytes`` of points; beyond that the oldest are evicted.

    Nothing survives the process. 16 MiB hold some 40,000 points: over an hour at 100 peers.
    """

    def __init__(self, *, max_bytes: int = 16 * 1024 * 1024, clock: Clock | None = None) -> None:
        self._max_points = max(1, max_bytes // _BYTES_PER_POINT)
        self._clock = clock or SystemClock()
        self._epoch = secrets.token_hex(16)
        self._seq = 0
        self._buffer: list[MetricPoint] = []
        self._batches: deque[MetricBatch] = deque()
        # When the points of a collection came, and how many points had come by then.
        self._arrivals: deque[tuple[float, int]] = deque()
        self._appended = self._acknowledged = self._evicted = self._refused = 0
        self._sealed = 0
        self._reported = 0
        self._head: MetricBatch | None = None
        # Evicted while it was the head: it may be under way, and arrive after all.
        self._overtaken: MetricBatch | None = None
        self._dead_letters: deque[Refusal] = deque(maxlen=_MOST_DEAD_LETTERS)

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Add one collection, evicting the oldest points if it does not fit."""
        self._buffer.extend(points)
        self._appended += len(points)
        self._arrivals.append((self._clock.monotonic(), self._appended))
        self._evict(self._sealed + len(self._buffer) - self._max_points)

    def _evict(self, excess: int) -> None:
        while excess > 0 and self._batches:
            lost = self._batches.popleft()
            self._overtaken, self._head = self._head or self._overtaken, None
            self._sealed -= len(lost)
            self._evicted += len(lost)
            excess -= len(lost)
        if excess > 0:
            del self._buffer[:excess]
            self._evicted += excess

    async def seal(self, limit: int) -> None:
        """Freeze the buffer into batches; each uses up one number of this spool's epoch."""
        points, self._buffer = self._buffer, []
        for start in range(0, len(points), limit):
            chunk = points[start : start + limit]
            self._seq += 1
            name = BatchName(epoch=self._epoch, seq=self._seq, offset=0, of=len(chunk))
            self._batches.append(MetricBatch(chunk, name=name))
        self._sealed += len(points)

    async def head(self) -> MetricBatch | None:
        """Return the oldest batch; its ``dropped`` is what was lost before it became the head."""
        self._overtaken = None
        if self._head is None and self._batches:
            oldest = self._batches[0]
            dropped = self._evicted + self._refused - self._reported
            self._head = MetricBatch(oldest, name=oldest.name, dropped=dropped)
        return self._head

    async def acknowledge(self, name: BatchName, *, refused: Sequence[Refusal] = ()) -> None:
        """Forget the head and, if any of it was accepted, the loss that it reported."""
        batch = self._pop(name)
        if batch is None:
            return
        given_up = sum(len(refusal.batch) for refusal in refused)
        if given_up < len(batch):
            self._reported += batch.dropped
        self._refused += given_up
        self._acknowledged += len(batch) - given_up
        self._dead_letters.extend(refused)

    def _pop(self, name: BatchName) -> MetricBatch | None:
        """Remove the batch called ``name`` from the count it is in: waiting, or evicted."""
        head, overtaken = self._head, self._overtaken
        if head is not None and head.name == name:
            self._head = None
            self._batches.popleft()
            self._sealed -= len(head)
            return head
        if overtaken is not None and overtaken.name == name:
            self._overtaken = None
            self._evicted -= len(overtaken)
            return overtaken
        return None

    async def dead_letters(self) -> Sequence[Refusal]:
        """Return the last sixteen."""
        return tuple(self._dead_letters)

    def statistics(self) -> SpoolStatistics:
        """Return counts since this spool was made."""
        waiting = self._sealed + len(self._buffer)
        return SpoolStatistics(
            appended=self._appended,
            acknowledged=self._acknowledged,
            refused=self._refused,
            evicted=self._evicted,
            buffered=len(self._buffer),
            sealed=self._sealed,
            batches=len(self._batches),
            stored_bytes=waiting * _BYTES_PER_POINT,
            oldest_seconds=self._oldest_seconds(waiting),
            dead_letters=len(self._dead_letters),
        )

    def _oldest_seconds(self, waiting: int) -> float:
        gone = self._appended - waiting
        while self._arrivals and self._arrivals[0][1] <= gone:
            self._arrivals.popleft()
        return self._clock.monotonic() - self._arrivals[0][0] if self._arrivals else 0.0

    async def aclose(self) -> None:
        pass  # nothing is held outside the process


if TYPE_CHECKING:
    _: type[Spool] = MemorySpool
