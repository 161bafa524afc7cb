"""The spool without its thread: on the disk while that works, in memory while it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from plexd.spool.chain import Chain
from plexd.spool.epoch import StepWatch, new_epoch
from plexd.spool.errors import DamagedError, DiskError, SpoolError, SpoolLockedError
from plexd.spool.log import PointLog
from plexd.spool.port import SpoolStatistics
from plexd.spool.sqlite.ballast import Ballast
from plexd.spool.sqlite.fallback import Fallback
from plexd.spool.sqlite.lock import SpoolLock
from plexd.spool.sqlite.opening import DiskLog, Opener
from plexd.spool.sqlite.readonly import ReadonlyLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from plexd.api import BatchName, MetricBatch
    from plexd.clock import Clock
    from plexd.spool.budget import Budget
    from plexd.spool.port import Refusal
    from plexd.spool.rows import Row, Run
    from plexd.spool.sqlite.files import SpoolFiles

_T = TypeVar("_T")
_RETRY_SECONDS = 15.0


class Failover:
    """All methods block; none raises for what a disk does."""

    def __init__(
        self,
        files: SpoolFiles,
        budget: Budget,
        max_age_ms: int,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._files = files
        self._clock = clock
        self._logger = logger
        self._steps = StepWatch(clock)
        self._opener = Opener(files, budget, max_age_ms, clock, logger)
        self._ballast = Ballast(files.ballast, budget.ballast)
        self._lock: SpoolLock | None = None
        self._disk: DiskLog | None = None
        self._readonly: ReadonlyLog | None = None
        self._fallback = Fallback(budget, max_age_ms, clock)
        self._last: PointLog | None = None
        self._was_open = False
        self._trouble = ""
        self._retry_at = float("-inf")

    def open(self) -> None:
        """Take the lock and open the files. Raises `SpoolLockedError` and nothing else."""
        self._try_disk()
        self._was_open = True

    def append(self, runs: Sequence[Run]) -> None:
        """Add a collection: on the disk, else in memory."""
        self._try_disk()
        self._watch_clocks()
        attempted: tuple[Row, ...] = ()

        def work(log: PointLog) -> None:
            nonlocal attempted
            if attempted and log.holds(attempted):
                return
            try:
                log.append(runs)
            except SpoolError:
                attempted = log.attempted if log.is_in_doubt else ()
                raise

        if self._disk is not None:
            try:
                self._on_disk(work)
            except DiskError as err:
                self._degrade(err)
            else:
                return
        if attempted:
            self._fallback.doubtful = attempted
        else:
            self._append_in_memory(runs)

    def _append_in_memory(self, runs: Sequence[Run]) -> None:
        chain = Chain() if self._readonly is None else self._readonly.meta.chain
        if self._fallback.moving is not None and self._fallback.moving.meta.chain.acknowledged:
            chain = self._fallback.moving.meta.chain
        self._fallback.append(runs, chain.delivered_so_far())

    def _watch_clocks(self) -> None:
        """Begin an epoch if this may be another machine's memory than a moment ago."""
        if self._steps.has_stepped():
            for log in (self._disk.log if self._disk is not None else None, self._fallback.log):
                if log is not None:
                    log.begin_epoch(new_epoch(self._clock))

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest readable points."""
        self._watch_clocks()
        found = self._attempt(lambda log: log.head(limit))
        if found is None and self._readonly is not None:
            found = self._readonly.head(limit)
        # Asking the disk may have shown that it fails, but then nothing is in memory yet.
        if found is None and (memory := self._fallback.log) is not None:
            found = memory.head(limit)
        return found

    def acknowledge(self, name: BatchName) -> None:
        """Acknowledge a batch where it is: on the disk, on one that is read-only, or in memory."""
        if self._attempt(lambda log: log.acknowledge(name)):
            return
        if self._readonly is not None and self._readonly.acknowledge(name):
            return
        if (memory := self._fallback.log) is not None:
            memory.acknowledge(name)

    def set_aside(self, refusal: Refusal) -> None:
        """Give a batch up where it is."""
        if self._attempt(lambda log: log.set_aside(refusal)):
            return
        if self._readonly is not None and self._readonly.set_aside(refusal):
            return
        if (memory := self._fallback.log) is not None:
            memory.set_aside(refusal)

    def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        """Rename what waits under the epoch of ``name`` where it is."""
        fresh = new_epoch(self._clock)
        if self._attempt(lambda log: log.rename(name, upto, newest, fresh)):
            return
        if self._readonly is not None and self._readonly.rename(name):
            return
        if (memory := self._fallback.log) is not None:
            memory.rename(name, upto, newest, fresh)

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused, as far as it can be read."""
        found: list[Refusal] = list(self._attempt(PointLog.dead_letters) or ())
        if self._readonly is not None:
            found += self._readonly.dead_letters()
        if (memory := self._fallback.log) is not None:
            found += memory.dead_letters()
        return found

    def statistics(self) -> tuple[SpoolStatistics, float | None]:
        """Return counts, and since when, by the monotonic clock, the oldest point has waited."""
        disk = self._disk.log if self._disk is not None else self._readonly
        logs = [log for log in (disk, *self._fallback.logs) if log is not None]
        waited = [
            log.steady.now_ms() - oldest
            for log in logs
            if (oldest := log.sizes.oldest_ms) is not None
        ]
        since = self._clock.monotonic() - max(waited) / 1000 if waited else None
        in_doubt = self._fallback.in_doubt
        return SpoolStatistics.of(logs, in_doubt=in_doubt, degraded=self._trouble), since

    def close(self) -> None:
        """Bring to the disk what can be brought, and close everything."""
        if self._disk is None:
            self._retry_at = float("-inf")
            self._try_disk()
        if self._readonly is not None:
            self._readonly.close()
        self._fallback.close()
        if self._disk is not None:
            self._disk.close()
        if self._lock is not None:
            self._lock.release()

    def _attempt(self, work: Callable[[PointLog], _T]) -> _T | None:
        if self._disk is None:
            return None
        try:
            return self._on_disk(work)
        except DiskError as err:
            self._degrade(err)
            return None

    def _on_disk(self, work: Callable[[PointLog], _T]) -> _T:
        """Do ``work``; if that fails once more on a freshly opened file, raise `DiskError`.

        Never again on the same connection: after a failed sync the system may have thrown away
        what was to be written, and would report the next one as done. What cannot be read then
        either, of a file that was just opened and written to, is taken for damaged.
        """
        for attempt in range(3):
            try:
                disk = self._current()
                disk.check()
                return work(disk.log)
            except SpoolError as err:
                if attempt == 2:
                    raise DiskError(str(err)) from err
                self._reopen(_damage(err) if attempt else err)
        raise AssertionError

    def _current(self) -> DiskLog:
        if self._disk is None:
            raise DiskError(self._trouble)
        return self._disk

    def _reopen(self, err: SpoolError) -> None:
        if isinstance(err, DiskError) and err.is_full:
            self._ballast.drop()
        old = self._current()
        self._hold_lock()
        if isinstance(err, DamagedError):
            self._disk = self._opener.replace(str(err), old.log, old.tables)
            old.abandon()
        else:
            old.abandon()
            self._disk = self._opener.open(old.log)
        self._disk.log.hand_over(old.log)

    def _degrade(self, err: DiskError) -> None:
        if self._disk is not None:
            disk, self._disk = self._disk, None
            disk.abandon()
            self._last = disk.log
            self._readonly = ReadonlyLog(self._files.database, disk.log)
        if not self._trouble:
            extra = {"component": "spool", "error": str(err)}
            self._logger.warning("spool degraded", extra=extra)
        self._trouble = str(err)
        self._retry_at = self._clock.monotonic() + _RETRY_SECONDS

    def _try_disk(self) -> None:
        """Open the spool, or open it again once it is time to, and bring everything there."""
        if self._disk is not None or self._clock.monotonic() < self._retry_at:
            return
        if self._readonly is not None:
            self._readonly.close()  # for now: it has the file locked
        try:
            self._hold_lock()
            disk = self._opener.open(self._last)
            self._bring_back(disk)
        except DiskError as err:
            if err.is_full:
                self._ballast.drop()
            self._degrade(err)
            return
        except DamagedError as err:
            self._degrade(DiskError(str(err)))
            return
        self._ballast.load()
        if self._trouble:
            self._trouble = ""
            self._logger.info("spool recovered", extra={"component": "spool"})

    def _bring_back(self, disk: DiskLog) -> None:
        try:
            if self._readonly is not None:
                self._readonly.depart_from(disk.log)
            self._fallback.empty_into(disk.log)
        except SpoolError:
            disk.abandon()
            raise
        self._disk, self._readonly, self._last = disk, None, None

    def _hold_lock(self) -> None:
        """Take the lock; raise `SpoolLockedError` if this process never had it and another has."""
        if self._lock is not None and self._lock.is_at(self._files.lock):
            return
        self._files.make_directory()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        try:
            self._lock = SpoolLock(self._files.lock)
        except SpoolLockedError as err:
            if self._was_open:
                raise DiskError(str(err)) from err
            raise
        if (aside := self._files.claim()) is not None:
            extra = {"component": "spool", "kept_as": str(aside)}
            self._logger.warning("spool of another node set aside", extra=extra)
            self._hold_lock()  # of the files that are there now


def _damage(err: SpoolError) -> SpoolError:
    if isinstance(err, DiskError) and err.is_read:
        return DamagedError(f"a part of it cannot be read: {err}")
    return err
