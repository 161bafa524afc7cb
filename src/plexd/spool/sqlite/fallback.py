"""What is kept in memory while the disk fails, until it can be moved to the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.spool.budget import Budget
from plexd.spool.chain import Chain
from plexd.spool.epoch import new_epoch
from plexd.spool.errors import SpoolError
from plexd.spool.memory import log_in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import Predecessor
    from plexd.clock import Clock
    from plexd.spool.log import PointLog
    from plexd.spool.rows import Row, Run


class Fallback:
    """A log in memory, and what has to be done on the disk once it works again.

    Attributes:
        log: the log, None while it is not needed.
        doubtful: rows of which nobody knows whether they are on the disk. They are neither
            delivered nor given up.
        moving: a log of which the same is true as a whole: its move failed at its very end.
    """

    def __init__(self, budget: Budget, max_age_ms: int, clock: Clock) -> None:
        self.log: PointLog | None = None
        self.doubtful: tuple[Row, ...] = ()
        self.moving: PointLog | None = None
        self._budget = Budget.in_memory(budget.transaction)
        self._max_age_ms = max_age_ms
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to bring back to the disk."""
        return self.log is None and self.moving is None and not self.doubtful

    @property
    def logs(self) -> list[PointLog]:
        """The logs that hold points."""
        return [log for log in (self.moving, self.log) if log is not None]

    @property
    def in_doubt(self) -> int:
        """How many points are in doubt."""
        return sum(row.points for row in self.doubtful)

    def append(self, runs: Sequence[Run], before: Predecessor) -> None:
        """Add a collection, under an epoch that nothing on the disk has.

        ``before`` is what was delivered of the disk until now.
        """
        if self.log is None:
            chain = Chain(epoch=new_epoch(self._clock))
            chain.before_epoch, chain.before_place = before.epoch, before.place
            self.log = log_in_memory(self._budget, self._max_age_ms, self._clock, chain)
        self.log.append(runs)

    def empty_into(self, disk: PointLog) -> None:
        """Bring everything to the disk, step by step; no step that is done is repeated.

        Raises `SpoolError` at the step that fails.
        """
        if self.doubtful:
            self._restore(disk)
        if self.moving is not None and disk.has_absorbed(self.moving):
            self._drop(self.moving)
        for log in self.logs:
            self._move(log, disk)

    def _restore(self, disk: PointLog) -> None:
        if not disk.holds(self.doubtful):
            try:
                disk.restore(self.doubtful)
            except SpoolError:
                if disk.is_in_doubt:
                    self.doubtful = disk.attempted
                raise
        self.doubtful = ()

    def _move(self, log: PointLog, disk: PointLog) -> None:
        try:
            disk.absorb(log)
        except SpoolError:
            if disk.is_in_doubt and log is self.log:
                # What is appended from now on must not share its fate.
                self.moving, self.log = log, None
            raise
        self._drop(log)

    def _drop(self, log: PointLog) -> None:
        log.close()
        if log is self.log:
            self.log = None
        else:
            self.moving = None

    def close(self) -> None:
        """Drop the logs."""
        for log in self.logs:
            self._drop(log)
