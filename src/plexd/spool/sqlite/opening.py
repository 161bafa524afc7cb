"""Opening a spool's files, whatever state they are in."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, NamedTuple

from plexd.spool.clocks import SteadyClock
from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.log import PointLog
from plexd.spool.sqlite.recovery import WatermarkFile, recover
from plexd.spool.sqlite.salvage import salvage, salvage_file
from plexd.spool.sqlite.tables import SpoolTables

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.clock import Clock
    from plexd.spool.budget import Budget
    from plexd.spool.errors import SpoolError
    from plexd.spool.sqlite.files import Identity, SpoolFiles

# Attempts to open a file of which a part cannot be read, before it is given up.
_MOST_UNREAD = 3


class DiskLog(NamedTuple):
    """A log in its files, which had this identity when it was opened, with its watermark."""

    log: PointLog
    tables: SpoolTables
    watermark: WatermarkFile
    files: SpoolFiles
    identity: Identity

    def check(self) -> None:
        """Raise if these are no longer the files behind the names."""
        if self.files.identity() != self.identity:
            raise DamagedError("its files were removed or replaced")
        if not self.watermark.is_in_place():
            raise DiskError("its mark was removed or replaced")

    def abandon(self) -> None:
        """Close both without another write: one failed, or the names are those of other files."""
        self.tables.abandon()
        self.watermark.close()

    def close(self) -> None:
        """Close database and watermark."""
        self.tables.close()
        self.watermark.close()


class Opener:
    """Opens the spool in ``files``: salvages what is damaged, counts what is missing.

    Each way of opening ends with ``bring``, which brings to the log what waits for it. Where that
    fails, so does the opening.
    """

    def __init__(
        self, files: SpoolFiles, budget: Budget, clock: Clock, logger: logging.Logger
    ) -> None:
        self._files = files
        self._budget = budget
        self._clock = clock
        self._steady: SteadyClock | None = None
        self._logger = logger
        self._unread = 0

    def open(self, bring: Callable[[PointLog], None]) -> DiskLog:
        """Take the lock and return the log. Raises `DiskError` and `SpoolLockedError`."""
        self._hold_lock()
        try:
            self._files.finish_succession()
            opened = self._recovered(bring)
        except (DamagedError, DiskError) as err:
            if not isinstance(err, DamagedError) and not self._is_lasting(err):
                raise
            return self.replace(err, bring)
        self._unread = 0
        return opened

    def _hold_lock(self) -> None:
        if (aside := self._files.hold()) is not None:
            extra = {"component": "spool", "kept_as": str(aside)}
            self._logger.warning("spool of another node set aside", extra=extra)

    def _is_lasting(self, err: DiskError) -> bool:
        """Return whether a place cannot be read, rather than the disk being away for a while."""
        self._unread = self._unread + 1 if err.is_read else 0
        if self._unread < _MOST_UNREAD:
            return False
        self._unread = 0
        with closing(SpoolTables(self._files.database)) as tables:
            return tables.is_whole()

    def replace(
        self, err: SpoolError, bring: Callable[[PointLog], None], source: SpoolTables | None = None
    ) -> DiskLog:
        """Make a new database of what is readable in the old one, through ``source`` if open.

        Raises `DiskError` and `SpoolLockedError`.
        """
        self._hold_lock()
        try:
            self._files.drop_successor()
            with closing(SpoolTables.open(self._files.successor, self._budget)) as target:
                if source is not None:
                    rows = salvage(source, target)
                else:
                    rows = salvage_file(self._files.database, target)
            aside = self._files.succeed(self._clock.now())
            reason = f"a part of it cannot be read: {err}" if err.is_read else str(err)
            extra = {"component": "spool", "reason": reason, "rows": rows, "kept_as": str(aside)}
            self._logger.warning("spool set aside", extra=extra)
            return self._recovered(bring)
        except DamagedError as again:
            raise DiskError(f"damaged again at once: {again}") from again

    def _recovered(self, bring: Callable[[PointLog], None]) -> DiskLog:
        """Open the files that are there, count what is missing, and begin an epoch.

        The first commit fails at once if this disk accepts no writes.
        """
        with ExitStack() as held:
            tables = SpoolTables.open(self._files.database, self._budget)
            held.callback(tables.abandon)
            watermark = held.enter_context(closing(WatermarkFile(self._files.watermark)))
            meta, loss = recover(tables, watermark.read())
            clock = self._steady or SteadyClock(self._clock, meta)
            log = PointLog(tables, meta, self._budget, clock, watermark.note)
            identity = self._files.identity()
            log.begin_epoch()
            tables.checkpoint()
            self._steady = clock
            if loss:
                extra = {"component": "spool", "reason": loss, "damaged": meta.damaged}
                self._logger.warning("spool damaged", extra=extra)
            bring(log)
            held.pop_all()
        return DiskLog(log, tables, watermark, self._files, identity)
