"""The spool without its thread: on the disk while that works, in memory while it does not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from plexd.spool.budget import Budget
from plexd.spool.errors import DamagedError, DiskError, SpoolError
from plexd.spool.log import PointLog, statistics_of
from plexd.spool.memory import log_in_memory
from plexd.spool.sqlite.opening import DiskLog, Opener
from plexd.spool.sqlite.readonly import ReadonlyLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from plexd.api import MetricBatch
    from plexd.clock import Clock
    from plexd.spool.port import Refusal, SpoolStatistics
    from plexd.spool.sqlite.files import SpoolFiles

_T = TypeVar("_T")
_RETRY_SECONDS = 15.0


class Fallback:
    """What is kept in memory while the disk fails, until it can be moved to the disk.

    Attributes:
        logs: the logs that hold points, the oldest first: at most one, but for one of which nobody
            knows whether it is on the disk, as its move failed at its very end.
    """

    def __init__(self, new_log: Callable[[], PointLog]) -> None:
        self.logs: list[PointLog] = []
        self._in_doubt: PointLog | None = None
        self._new_log = new_log

    @property
    def log(self) -> PointLog | None:
        """The log that is delivered and appended to; None while there is none."""
        return next((log for log in self.logs if log is not self._in_doubt), None)

    def append(self, runs: Sequence[MetricBatch]) -> None:
        """Add a collection, under an epoch that nothing on the disk has."""
        if self.log is None:
            self.logs.append(self._new_log())
        self.logs[-1].append(runs)

    def after(self, disk: ReadonlyLog | None) -> PointLog | None:
        """Return the log, which comes after what was delivered until now of those before it."""
        first = self.logs[0] if self.logs else None
        before = first if first is self._in_doubt and first and first.meta.acknowledged else disk
        if self.log is not None and before is not None:
            self.log.come_after(before.meta.chain)
        return self.log

    def empty_into(self, disk: PointLog) -> None:
        """Bring everything to the disk, log by log. Raises `SpoolError` at the one that fails."""
        while self.logs:
            if not disk.has_absorbed(self.logs[0]):
                self._move(self.logs[0], disk)
            del self.logs[0]

    def _move(self, log: PointLog, disk: PointLog) -> None:
        try:
            disk.absorb(log)
        except SpoolError:
            if disk.is_in_doubt:  # what is appended from now on must not share its fate
                self._in_doubt = log
            raise


class Failover:
    """All methods block; none raises for what a disk does."""

    def __init__(
        self, files: SpoolFiles, budget: Budget, clock: Clock, logger: logging.Logger
    ) -> None:
        self._files = files
        self._clock = clock
        self._logger = logger
        self._opener = Opener(files, budget, clock, logger)
        self._disk: DiskLog | None = None
        self._readonly: ReadonlyLog | None = None
        in_memory = Budget.in_memory(budget.transaction, budget.max_age_ms)
        self._fallback = Fallback(partial(log_in_memory, in_memory, clock))
        self._trouble = ""
        self._retry_at = float("-inf")

    def open(self) -> None:
        """Take the lock and open the files. Raises `SpoolLockedError` and nothing else."""
        try:
            self._open_disk()
        except DiskError as err:
            self._degrade(err)

    def append(self, runs: Sequence[MetricBatch]) -> None:
        """Add a collection: on the disk, else in memory."""
        tried: list[PointLog] = []

        def add(log: PointLog) -> bool:
            if not (tried and tried[-1].is_in_doubt):  # else this log went on from there
                tried.append(log)
                log.append(runs)
            return True

        self._try_disk()
        if not self._attempt(add) and not (tried and tried[-1].is_in_doubt):
            self._fallback.append(runs)

    def first(self, work: Callable[[PointLog | ReadonlyLog], _T]) -> _T | None:
        """Return the first answer of the logs, those with older points before others.

        They are the one on the disk, or what can be read of it, and the one in memory. Asking the
        disk may show that it fails.
        """
        found = self._attempt(work)
        for log in (self._readonly, self._fallback.after(self._readonly)):
            if not found and log is not None:
                found = work(log)
        return found

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused, as far as it can be read."""
        found = list(self._attempt(PointLog.dead_letters) or ())
        for log in (self._readonly, self._fallback.log):
            found += log.dead_letters() if log is not None else ()
        return found

    def statistics(self) -> SpoolStatistics:
        """Return counts of all logs together."""
        disk = self._disk.log if self._disk is not None else self._readonly
        logs = [log for log in (disk, *self._fallback.logs) if log is not None]
        return statistics_of(logs, self._trouble)

    def close(self) -> None:
        """Bring to the disk what can be brought, and close everything."""
        self._retry_at = float("-inf")
        self._try_disk()
        for log in (self._readonly, self._disk):
            if log is not None:
                log.close()
        self._files.release()

    def _attempt(self, work: Callable[[PointLog], _T]) -> _T | None:
        """Do ``work`` on the disk; None if that cannot be done.

        If it fails, it is done again on freshly opened files: after a failed sync the system may
        have thrown away what was to be written, and would report the next one as done. What cannot
        be read then either, of a file that was just opened and written to, is taken for damaged.
        """
        for mend in (self._reopen, partial(self._reopen, is_lasting=True), self._degrade):
            if self._disk is None:
                break
            try:
                self._disk.check()
                return work(self._disk.log)
            except SpoolError as err:
                mend(err)
        return None

    def _reopen(self, err: SpoolError, *, is_lasting: bool = False) -> None:
        old = self._disk
        if old is None:
            return
        if err.is_full:
            self._files.drop_ballast()
        try:
            if isinstance(err, DamagedError) or (is_lasting and err.is_read):
                self._disk = self._opener.replace(err, old.go_on, old.tables)
                old.abandon()
            else:
                old.abandon()
                self._disk = self._opener.open(old.go_on)
        except SpoolError as failed:
            self._degrade(failed)

    def _degrade(self, err: SpoolError) -> None:
        if err.is_full:
            self._files.drop_ballast()
        if self._disk is not None:
            self._disk.abandon()
            self._readonly = ReadonlyLog(self._files.database, self._disk.log)
            self._disk = None
        if not self._trouble:
            extra = {"component": "spool", "error": str(err)}
            self._logger.warning("spool degraded", extra=extra)
        self._trouble = str(err)
        self._retry_at = self._clock.monotonic() + _RETRY_SECONDS

    def _try_disk(self) -> None:
        """Open the spool again, once it is time to."""
        if self._disk is None and self._clock.monotonic() >= self._retry_at:
            try:
                self._open_disk()
            except SpoolError as err:
                self._degrade(err)

    def _open_disk(self) -> None:
        """Open the spool and bring everything there."""
        if self._readonly is not None:
            self._readonly.close()  # for now: it has the file locked
        self._disk = self._opener.open(self._bring_back)
        self._readonly = None
        self._files.load_ballast()
        if self._trouble:
            self._trouble = ""
            self._logger.info("spool recovered", extra={"component": "spool"})

    def _bring_back(self, disk: PointLog) -> None:
        if self._readonly is not None:
            self._readonly.end_in(disk)
        self._fallback.empty_into(disk)
