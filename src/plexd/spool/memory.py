"""A spool that lives and dies with the process."""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.spool.budget import Budget
from plexd.spool.clocks import SteadyClock
from plexd.spool.log import PointLog, statistics_of
from plexd.spool.meta import Meta
from plexd.spool.rows import Outline, Row, Sizes, runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from plexd.api import BatchName, MetricBatch, MetricPoint
    from plexd.spool.port import Refusal, Spool, SpoolStatistics
    from plexd.spool.rows import Rows

_MOST_DEAD_LETTERS: Final = 16


class MemoryRows:
    """`Rows` in this process; its row is a few objects beside its body."""

    row_bytes = 250

    def __init__(self) -> None:
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._letters: deque[Refusal] = deque(maxlen=_MOST_DEAD_LETTERS)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep what the body does: nothing in it fails halfway."""
        yield

    def write_meta(self, meta: Meta) -> None:
        pass  # the log has it

    def put(self, row: Row) -> None:
        is_last = not self._rows or row.id > next(reversed(self._rows))
        self._rows[row.id] = row
        if not is_last:
            self._rows = OrderedDict(sorted(self._rows.items()))

    def drop(self, number: int) -> None:
        del self._rows[number]

    def outlines(self, after: int = -(2**63)) -> Iterator[Outline]:
        for row in self._rows.values():
            if row.id > after:
                yield Outline(row.id, row.epoch, row.place, row.points, len(row.body), row.stamped)

    def read(self, number: int) -> Row | None:
        return self._rows.get(number)

    def measure(self) -> Sizes:
        rows = self._rows.values()
        return Sizes(
            bytes=sum(len(row.body) + self.row_bytes for row in rows),
            points=sum(row.points for row in rows),
            dead_letters=len(self._letters),
        )

    def add_dead_letter(self, refusal: Refusal) -> int:
        self._letters.append(refusal)
        return len(self._letters)

    def dead_letters(self) -> list[Refusal]:
        return list(self._letters)


def log_in_memory(budget: Budget, clock: Clock) -> PointLog:
    """Return an empty log that lives and dies with the process."""
    meta = Meta()
    log = PointLog(MemoryRows(), meta, budget, SteadyClock(clock, meta))
    log.begin_epoch()
    return log


class MemorySpool(AsyncClosing):
    """Keeps at most about ``max_bytes`` of points; beyond that the oldest are evicted.

    Nothing survives the process. 16 MiB hold some 80,000 points: over two hours at 100 peers.
    """

    def __init__(self, *, max_bytes: int = 16 * 1024 * 1024, clock: Clock | None = None) -> None:
        self._log = log_in_memory(Budget.in_memory(max_bytes), clock or SystemClock())

    async def append(self, points: Sequence[MetricPoint]) -> None:
        if runs := runs_of(points):
            self._log.append(runs)

    async def head(self, limit: int) -> MetricBatch | None:
        return self._log.head(limit)

    async def acknowledge(self, name: BatchName) -> None:
        self._log.acknowledge(name)

    async def set_aside(self, refusal: Refusal) -> None:
        """Give up a batch; the last sixteen are kept."""
        self._log.set_aside(refusal)

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        self._log.rename(name, upto, newest)

    async def dead_letters(self) -> Sequence[Refusal]:
        return tuple(self._log.dead_letters())

    def statistics(self) -> SpoolStatistics:
        return statistics_of([self._log])

    async def aclose(self) -> None:
        pass  # nothing is held outside the process


if TYPE_CHECKING:
    _rows: type[Rows] = MemoryRows
    _: type[Spool] = MemorySpool
