"""The agent's own log of points, with the handles that a test of many lives needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from plexd.api import LatencyResult, MetricBatch, MetricPoint, decode_batch
from plexd.spool.budget import Budget
from plexd.spool.memory import log_in_memory
from plexd.spool.port import Refusal
from plexd.spool.rows import runs_of
from support.reference_spool import Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.api import BatchName, Receipt

__all__ = ["LogSpool"]


class _StoppedClock:
    """A clock of which a copy is a copy."""

    def now(self) -> datetime:
        return datetime(2026, 2, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class Used(NamedTuple):
    """An epoch under which points were named or sent, and the one it was made of after a clash."""

    epoch: str
    continues: str = ""


class LogSpool:
    """`PointLog`, with the methods of `ReferenceSpool`. Each point has a row of its own."""

    def __init__(self, life: str) -> None:
        self._log = log_in_memory(Budget.in_memory(2**30), _StoppedClock())  # type: ignore[arg-type]  # it only tells the time
        self._log.begin_epoch(life)
        self._head: MetricBatch | None = None
        self._life = life
        self.epochs: list[Used] = []

    @property
    def life(self) -> str:
        return self._life

    @life.setter
    def life(self, epoch: str) -> None:
        self._life = epoch
        self._log.begin_epoch(epoch)

    @property
    def rows(self) -> list[Row]:
        found = []
        for row in self._log._waiting():
            (point,) = decode_batch(row.body)
            found.append(Row(row.epoch, row.place, point.timestamp, point.peer_id))
        return found

    def append(self, stamp: datetime, uids: Iterable[str]) -> None:
        self.epochs.append(Used(self._life))
        for uid in uids:
            data = LatencyResult(uid, 1)
            point = MetricPoint(timestamp=stamp, group="latency", peer_id=uid, data=data)
            self._log.append(runs_of([point]))

    def head(self, limit: int) -> MetricBatch | None:
        self._head = self._log.head(limit)
        return self._head

    def answer(self, name: BatchName, receipt: Receipt) -> None:
        if not receipt.clash:
            self._log.acknowledge(name)
            return
        assert receipt.newest is not None
        if self._log.rename(name, receipt.upto, receipt.newest):
            self.epochs.append(Used(self._log.meta.chain.sent_as, name.epoch))

    def set_aside(self, name: BatchName) -> None:
        assert self._head is not None
        assert self._head.name == name
        self._log.set_aside(Refusal(self._head, "no"))

    def drop(self, index: int, count: int) -> None:
        """Lose the oldest rows: by eviction, or by damage, which a log finds when it reads them."""
        oldest = list(self._log._rows.outlines())[:count]
        with self._log._transaction():
            for outline in oldest:
                if index:
                    self._log._quarantine(outline)
                else:
                    self._log._lose_oldest(outline, "evicted")
