"""The spool without its thread: on the disk while that works, in memory while it does not.

What lies unsealed on a disk that fails stays there until it works again: given a name in memory,
it would be sent under another one after a crash.
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
from plexd.spool.sqlite.opening import Opener
from plexd.spool.sqlite.readonly import ReadonlyTables

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from plexd.api import BatchName, MetricBatch
    from plexd.clock import Clock
    from plexd.spool.port import Refusal
    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.files import SpoolFiles
    from plexd.spool.sqlite.opening import DiskQueue
    from plexd.spool.sqlite.rows import Row

__all__ = ["Failover", "Parts"]

_T = TypeVar("_T")
_RETRY_SECONDS = 15.0


class Parts(Struct, frozen=True):
    """What the spool is made of at a moment, for its statistics."""

    ledgers: tuple[PointLog, ...]
    in_doubt: int
    degraded: str


class Failover:
    """All methods block; none raises for what a disk does."""

    def __init__(
        self,
        files: SpoolFiles,
        bounds: Budget,
        max_age_ms: int,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._files = files
        self._bounds = bounds
        self._max_age_ms = max_age_ms
        self._clock = clock
        self._logger = logger
        self._opener = Opener(files, bounds, max_age_ms, clock, logger)
        self._ballast = Ballast(files.ballast, bounds.ballast)
        self._lock: SpoolLock | None = None
        self._disk: DiskQueue | None = None
        self._ailing: PointLog | None = None
        self._shelter = Fallback(bounds, max_age_ms, clock)
        self._was_open = False
        self._limit = 100
        self._trouble = ""
        self._retry_at = float("-inf")

    def open(self) -> None:
        """Take the lock and open the files. Raises `SpoolLockedError` and nothing else."""
        self._try_disk()
        self._was_open = True

    def append(self, body: bytes, points: int) -> None:
        """Take in a collection: on the disk, else in memory."""
        self._try_disk()
        attempted: Row | None = None

        def work(ledger: PointLog) -> None:
            nonlocal attempted
            if attempted is not None and ledger.has(attempted):
                return
            try:
                ledger.append(body, points)
            except SpoolError:
                attempted = ledger.attempted if ledger.is_in_doubt else None
                raise

        if self._disk is not None:
            try:
                self._on_disk(work)
            except DiskError as err:
                self._degrade(err)
            else:
                return
        if attempted is not None:
            self._shelter.doubt = Doubt(attempted, body, points)
        else:
            self._shelter.append(body, points)

    def seal(self, limit: int) -> None:
        """Make batches of what came in."""
        self._limit = limit
        self._attempt(lambda ledger: ledger.seal(limit))
        if (memory := self._shelter.queue) is not None:
            memory.seal(limit)

    def head(self) -> MetricBatch | None:
        """The oldest batch that can be had; what was handed out before is not overtaken."""
        memory = self._shelter.queue
        if memory is not None and memory.handed is not None:
            return memory.head()
        found = self._attempt(PointLog.head)
        if found is None and self._ailing is not None:
            with suppress(SpoolError):
                found = self._ailing.head()
        # Asking the disk may have shown that it fails, but then nothing is in memory yet.
        if found is None and memory is not None:
            found = memory.head()
        return found

    def acknowledge(self, name: BatchName, refused: Sequence[Refusal]) -> None:
        """Settle a batch where it is: on the disk, in front of it, or in memory."""
        self._attempt(lambda ledger: ledger.settle(name, refused))
        if self._ailing is not None and (found := self._ailing.settle(name, refused)) is not None:
            self._shelter.settled.append((found, tuple(refused)))
        if (memory := self._shelter.queue) is not None:
            memory.settle(name, refused)

    def dead_letters(self) -> list[Refusal]:
        """What was refused, as far as it can be read."""
        found: list[Refusal] = list(self._attempt(PointLog.dead_letters) or ())
        found += [refusal for _, refused in self._shelter.settled for refusal in refused]
        if (memory := self._shelter.queue) is not None:
            found += memory.dead_letters()
        return found

    def parts(self) -> Parts:
        """Where everything is just now."""
        disk = self._disk.ledger if self._disk is not None else self._ailing
        memory, doubt = self._shelter.queue, self._shelter.doubt
        ledgers = tuple(ledger for ledger in (disk, memory) if ledger is not None)
        return Parts(ledgers, doubt.points if doubt is not None else 0, self._trouble)

    def close(self) -> None:
        """Bring to the disk what can be, and let go of everything."""
        if not self._shelter.is_empty:
            self._retry_at = float("-inf")
            self._try_disk()
        if self._ailing is not None:
            self._ailing.close()
        self._shelter.close()
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
                return work(disk.ledger)
            except SpoolError as err:
                if attempt == 2:
                    raise DiskError(str(err)) from err
                self._open_anew(_damage(err) if attempt else err)
        raise AssertionError

    def _current(self) -> DiskQueue:
        if self._disk is None:
            raise DiskError(self._trouble)
        return self._disk

    def _open_anew(self, err: SpoolError) -> None:
        if isinstance(err, DiskError) and err.is_full:
            self._ballast.drop()
        old = self._current()
        before = old.ledger
        self._hold_lock()
        if isinstance(err, DamagedError):
            fresh = self._opener.replace(before.tables, str(err), before)
            old.abandon()
        else:
            old.abandon()
            fresh = self._opener.open(before)
        self._disk = fresh
        fresh.ledger.hand_over(before)

    def _degrade(self, err: DiskError) -> None:
        if self._disk is not None:
            self._ail(self._disk)
        if not self._trouble:
            extra = {"component": "spool", "error": str(err)}
            self._logger.warning("spool degraded", extra=extra)
        self._trouble = str(err)
        self._retry_at = self._clock.monotonic() + _RETRY_SECONDS

    def _ail(self, disk: DiskQueue) -> None:
        self._disk = None
        disk.abandon()
        self._ailing = disk.ledger
        self._ailing.written = None
        self._ailing.tables = ReadonlyTables(self._files.database)
        self._shelter.settle_in(self._ailing)

    def _try_disk(self) -> None:
        """Open the spool, or open it again once it is time to, and bring everything there."""
        if self._disk is not None or self._clock.monotonic() < self._retry_at:
            return
        if self._ailing is not None:
            self._ailing.close()  # for now: it has the file locked
        try:
            self._hold_lock()
            self._disk = self._opener.open(self._ailing)
            self._bring_back(self._disk.ledger)
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
        """Raises `SpoolLockedError` if another process has the spool before this one ever had."""
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
        ailing, self._ailing = self._ailing, None
        if ailing is not None:
            fresh.hand_over(ailing)
            ailing.close()
        self._shelter.empty_into(fresh, self._limit)


def _damage(err: SpoolError) -> SpoolError:
    if isinstance(err, DiskError) and err.is_read:
        return DamagedError(f"a part of it cannot be read: {err}")
    return err
