"""The spool without its thread: on the disk while that works, in memory while it does not.

What is unsealed on a disk that fails stays there until the disk works again: named in memory, it
would be sent under another name after a crash.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from plexd.spool.errors import DamagedError, DiskError, SpoolError, SpoolLockedError
from plexd.spool.sqlite.ballast import Ballast
from plexd.spool.sqlite.fallback import Doubt, Fallback
from plexd.spool.sqlite.lock import SpoolLock
from plexd.spool.sqlite.log import PointLog
from plexd.spool.sqlite.opening import DiskQueue, Opener
from plexd.spool.sqlite.readonly import ReadonlyTables

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from plexd.api import BatchName, MetricBatch
    from plexd.clock import Clock
    from plexd.spool.port import Refusal
    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.files import SpoolFiles
    from plexd.spool.sqlite.rows import Row

_T = TypeVar("_T")
_RETRY_SECONDS = 15.0


class Parts(Struct, frozen=True):
    """What the spool consists of at one moment, for its statistics."""

    logs: tuple[PointLog, ...]
    in_doubt: int
    degraded: str


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
        self._budget = budget
        self._max_age_ms = max_age_ms
        self._clock = clock
        self._logger = logger
        self._opener = Opener(files, budget, max_age_ms, clock, logger)
        self._ballast = Ballast(files.ballast, budget.ballast)
        self._lock: SpoolLock | None = None
        self._disk: DiskQueue | None = None
        self._readonly: PointLog | None = None
        self._fallback = Fallback(budget, max_age_ms, clock)
        self._was_open = False
        self._limit = 100
        self._trouble = ""
        self._retry_at = float("-inf")

    def open(self) -> None:
        """Take the lock and open the files. Raises `SpoolLockedError` and nothing else."""
        self._try_disk()
        self._was_open = True

    def append(self, body: bytes, points: int) -> None:
        """Add a collection: on the disk, else in memory."""
        self._try_disk()
        attempted: Row | None = None

        def work(log: PointLog) -> None:
            nonlocal attempted
            if attempted is not None and log.has(attempted):
                return
            try:
                log.append(body, points)
            except SpoolError:
                attempted = log.attempted if log.is_in_doubt else None
                raise

        if self._disk is not None:
            try:
                self._on_disk(work)
            except DiskError as err:
                self._degrade(err)
            else:
                return
        if attempted is not None:
            self._fallback.doubt = Doubt(attempted, body, points)
        else:
            self._fallback.append(body, points)

    def seal(self, limit: int) -> None:
        """Make batches of what was appended."""
        self._limit = limit
        self._attempt(lambda log: log.seal(limit))
        if (memory := self._fallback.queue) is not None:
            memory.seal(limit)

    def head(self) -> MetricBatch | None:
        """Return the oldest readable batch; what was handed out before is not overtaken."""
        memory = self._fallback.queue
        if memory is not None and memory.handed is not None:
            return memory.head()
        found = self._attempt(PointLog.head)
        if found is None and self._readonly is not None:
            with suppress(SpoolError):
                found = self._readonly.head()
        # Asking the disk may have shown that it fails, but then nothing is in memory yet.
        if found is None and memory is not None:
            found = memory.head()
        return found

    def acknowledge(self, name: BatchName, refused: Sequence[Refusal]) -> None:
        """Acknowledge a batch where it is: on the disk, on one that is read-only, or in memory."""
        self._attempt(lambda log: log.acknowledge(name, refused))
        readonly = self._readonly
        if readonly is not None and (found := readonly.acknowledge(name, refused)) is not None:
            self._fallback.acknowledged.append((found, tuple(refused)))
        if (memory := self._fallback.queue) is not None:
            memory.acknowledge(name, refused)

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused, as far as it can be read."""
        found: list[Refusal] = list(self._attempt(PointLog.dead_letters) or ())
        found += [refusal for _, refused in self._fallback.acknowledged for refusal in refused]
        if (memory := self._fallback.queue) is not None:
            found += memory.dead_letters()
        return found

    def parts(self) -> Parts:
        """Return where everything is now."""
        disk = self._disk.log if self._disk is not None else self._readonly
        memory, doubt = self._fallback.queue, self._fallback.doubt
        logs = tuple(log for log in (disk, memory) if log is not None)
        return Parts(logs, doubt.points if doubt is not None else 0, self._trouble)

    def close(self) -> None:
        """Bring to the disk what can be brought, and close everything."""
        if not self._fallback.is_empty:
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

    def _current(self) -> DiskQueue:
        if self._disk is None:
            raise DiskError(self._trouble)
        return self._disk

    def _reopen(self, err: SpoolError) -> None:
        if isinstance(err, DiskError) and err.is_full:
            self._ballast.drop()
        old = self._current()
        before = old.log
        self._hold_lock()
        if isinstance(err, DamagedError):
            fresh = self._opener.replace(before.tables, str(err), before)
            old.abandon()
        else:
            old.abandon()
            fresh = self._opener.open(before)
        self._disk = fresh
        fresh.log.hand_over(before)

    def _degrade(self, err: DiskError) -> None:
        if self._disk is not None:
            self._go_readonly(self._disk)
        if not self._trouble:
            extra = {"component": "spool", "error": str(err)}
            self._logger.warning("spool degraded", extra=extra)
        self._trouble = str(err)
        self._retry_at = self._clock.monotonic() + _RETRY_SECONDS

    def _go_readonly(self, disk: DiskQueue) -> None:
        self._disk = None
        disk.abandon()
        self._readonly = disk.log
        self._readonly.written = None
        self._readonly.tables = ReadonlyTables(self._files.database)
        self._fallback.replay_into(self._readonly)

    def _try_disk(self) -> None:
        """Open the spool, or open it again once it is time to, and bring everything there."""
        if self._disk is not None or self._clock.monotonic() < self._retry_at:
            return
        if self._readonly is not None:
            self._readonly.close()  # for now: it has the file locked
        try:
            self._hold_lock()
            self._disk = self._opener.open(self._readonly)
            self._bring_back(self._disk.log)
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

    def _bring_back(self, fresh: PointLog) -> None:
        readonly, self._readonly = self._readonly, None
        if readonly is not None:
            fresh.hand_over(readonly)
            readonly.close()
        self._fallback.empty_into(fresh, self._limit)


def _damage(err: SpoolError) -> SpoolError:
    if isinstance(err, DiskError) and err.is_read:
        return DamagedError(f"a part of it cannot be read: {err}")
    return err
