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
    """

    def __init__(self, budget: Budget, max_age_ms: int, clock: Clock) -> None:
        self.log: PointLog | None = None
        self.doubtful: tuple[Row, ...] = ()
        self._is_move_in_doubt = False
        self._budget = Budget.in_memory(budget.transaction)
        self._max_age_ms = max_age_ms
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to bring back to the disk."""
        return self.log is None and not self.doubtful

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
        if self.log is not None and not (self._is_move_in_doubt and disk.has_absorbed(self.log)):
            self._move(self.log, disk)
        self.close()

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
            self._is_move_in_doubt = disk.is_in_doubt
            raise

    def close(self) -> None:
        """Drop the log."""
        self._is_move_in_doubt = False
        if self.log is not None:
            self.log.close()
            self.log = None
