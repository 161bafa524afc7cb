"""The spool without its thread: on the disk while that works, in memory while it does not.

A disk that fails may still be read: what is on it is delivered before what is in memory.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from plexd.spool.budget import ROW_BYTES, Budget
from plexd.spool.errors import DamagedError, DiskError, SpoolError
from plexd.spool.log import PointLog, statistics_of
from plexd.spool.memory import log_in_memory
from plexd.spool.rows import assemble, whole_rows
from plexd.spool.sqlite.opening import DiskLog, Opener
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from plexd.api import BatchName, MetricBatch
    from plexd.clock import Clock
    from plexd.spool.port import Refusal, SpoolStatistics
    from plexd.spool.rows import Row
    from plexd.spool.sqlite.files import SpoolFiles

_T = TypeVar("_T")
_RETRY_SECONDS = 15.0
# A file of a read-only disk cannot be locked for writing, which SQLite wants for a -wal. Nobody
# else uses it: this process has the lock of the directory.
_WITHOUT_LOCKS = "unix-none"


class ReadonlyLog:
    """Delivers from the database at ``path`` where ``before`` stopped, and remembers what left.

    A row that cannot be read now is waited for: it is no damage yet. So are the rows of which
    nobody knows whether they are on the disk: they are neither delivered nor given up.

    Attributes:
        meta: what is known of the points; changes in it are lost with the process.
        sizes: what the tables hold beyond what left.
        clock: the clock by which ages are measured.
    """

    def __init__(self, path: Path, before: PointLog) -> None:
        self.meta = before.meta
        self._last = self.meta.appended
        if before.is_in_doubt:
            self.meta.appended += sum(row.points for row in before.added)
        self._before = before
        self.sizes = before.sizes
        self.clock = before.clock
        self._departures: list[Callable[[PointLog], object]] = []
        self._refusals: list[Refusal] = []
        self._path = path
        self._tables: SpoolTables | None = None
        self._behind = -(2**63)
        self._is_renamed = False

    def head(self, limit: int) -> MetricBatch | None:
        """Return the oldest points that have not left; None if they cannot be read."""
        with suppress(SpoolError):
            if not self._is_renamed:
                return assemble(self._waiting(), self.meta.chain, limit)
        return None

    def _waiting(self) -> Iterator[Row]:
        if self._tables is None:
            self._tables = SpoolTables(self._path, _WITHOUT_LOCKS)
        chain = self.meta.chain
        for row in whole_rows(self._tables, self._behind):
            if row.id > self._last:
                break
            if row.epoch != chain.head or row.place > chain.passed:
                yield row
            else:
                self._behind = row.id
                self.sizes.bytes -= len(row.body) + ROW_BYTES

    def acknowledge(self, name: BatchName) -> bool:
        points = self.meta.chain.ahead(name)
        if points:
            self.meta.acknowledged += points
            self.meta.chain.acknowledge(name.last, points, 0)
            self._departures.append(lambda disk: disk.acknowledge(name))
        return points > 0

    def set_aside(self, refusal: Refusal) -> bool:
        name = refusal.batch.name
        points = self.meta.chain.ahead(name) if name is not None else 0
        if name is not None and points:
            self.meta.refused += points
            self.meta.chain.refuse(name.last, points)
            self._departures.append(lambda disk: disk.set_aside(refusal))
            self._refusals.append(refusal)
        return points > 0

    def rename(self, name: BatchName, _upto: int, _newest: datetime) -> bool:
        """Deliver no more of an epoch that has to be renamed, which is done on the disk."""
        self._is_renamed = self._is_renamed or name.epoch == self.meta.chain.sent_as
        return self._is_renamed

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused since the disk failed."""
        return self._refusals

    def end_in(self, disk: PointLog) -> None:
        """Bring to the disk what happened meanwhile. Raises `SpoolError` at the step that fails."""
        while self._departures:
            self._departures[0](disk)
            del self._departures[0]
        disk.restore(self._before)

    def close(self) -> None:
        """Close the file, which is locked while it is open."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None


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

    def append(self, runs: Sequence[MetricBatch]) -> None:
        """Add a collection, under an epoch that nothing on the disk has."""
        if not self.logs or self.logs[-1] is self._in_doubt:
            self.logs.append(self._new_log())
        self.logs[-1].append(runs)

    def after(self, disk: ReadonlyLog | None) -> PointLog | None:
        """Return the log that is delivered; each log comes after what was delivered before it."""
        before: PointLog | ReadonlyLog | None = disk
        for log in self.logs:
            if before is not None:
                log.come_after(before.meta.chain)
            before = log
        return None if not self.logs or self.logs[-1] is self._in_doubt else self.logs[-1]

    def empty_into(self, disk: PointLog) -> None:
        """Bring everything to the disk, log by log. Raises `SpoolError` at the one that fails."""
        while self.logs:
            try:
                disk.absorb(self.logs[0])
            except SpoolError:
                if disk.is_in_doubt:  # what is appended from now on must not share its fate
                    self._in_doubt = self.logs[0]
                raise
            del self.logs[0]


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
        self._try_disk(DiskError)

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
        for log in (self._readonly, *self._fallback.logs):
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

        What fails is done again on freshly opened files; ``docs/spec/spool.md`` has the reasons.
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
                self._disk = self._opener.replace(err, old.log.hand_over, old.tables)
                old.abandon()
            else:
                old.abandon()
                self._disk = self._opener.open(old.log.hand_over)
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

    def _try_disk(self, expected: type[SpoolError] = SpoolError) -> None:
        """Open the spool, once it is time to."""
        if self._disk is None and self._clock.monotonic() >= self._retry_at:
            try:
                self._open_disk()
            except expected as err:
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
