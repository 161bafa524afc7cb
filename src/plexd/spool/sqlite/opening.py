"""Opening a spool's files, whatever state they are in."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.sqlite.log import PointLog
from plexd.spool.sqlite.recovery import Rows, reckon
from plexd.spool.sqlite.salvage import salvage, salvage_file
from plexd.spool.sqlite.schema import translated
from plexd.spool.sqlite.steady_clock import SteadyClock
from plexd.spool.sqlite.tables import SpoolTables
from plexd.spool.sqlite.watermark import Watermark, WatermarkFile

if TYPE_CHECKING:
    import logging

    from plexd.clock import Clock
    from plexd.spool.sqlite.budget import Budget
    from plexd.spool.sqlite.files import SpoolFiles
    from plexd.spool.sqlite.intake import LogIntake
    from plexd.spool.sqlite.meta import Meta

__all__ = ["DiskQueue", "Opener"]

# Attempts to open a file of which a part cannot be read, before it is given up.
_MOST_UNREAD = 3


class DiskQueue:
    """A ledger in its files, with its mark.

    ``trouble`` is why nothing more should be written through this one, although what was
    written is safe.
    """

    def __init__(self, ledger: PointLog, mark: WatermarkFile, files: SpoolFiles) -> None:
        self.ledger = ledger
        self.trouble: DiskError | None = None
        self._mark = mark
        self._files = files
        ledger.written = self._write_mark
        self._identity = files.identity()
        self._mark_identity = files.mark_identity()

    def _write_mark(self, ledger: LogIntake) -> None:
        try:
            self._mark.write(Watermark.of(ledger.account, ledger.sizes.front))
        except DiskError as err:
            self.trouble = err

    def check(self) -> None:
        """Raise if this is no longer the spool that is behind the names, or is in trouble."""
        if self.trouble is not None:
            raise self.trouble
        if self._files.identity() != self._identity:
            raise DamagedError("its files were removed or replaced")
        if self._files.mark_identity() != self._mark_identity:
            raise DiskError("its mark was removed or replaced")

    def abandon(self) -> None:
        """Close both without writing a byte more: it failed, or the names are another file's."""
        self.ledger.tables.abandon()
        self._mark.close()

    def close(self) -> None:
        """Close database and mark."""
        self.ledger.close()
        self._mark.close()


class Opener:
    """Opens the spool in ``files``: salvages what is damaged, counts what is missing."""

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
        self._unread = 0

    def open(self, before: PointLog | None = None) -> DiskQueue:
        """The queue; ``before`` is the one that worked on it so far in this process.

        Raises `DiskError`.
        """
        self._files.make_directory()
        self._files.finish_succession()
        try:
            tables = SpoolTables.open(self._files.database, self._bounds)
            queue = self._reckoned(tables, before)
        except DamagedError as err:
            return self.replace(None, str(err), before)
        except DiskError as err:
            if not self._is_lasting(err):
                raise
            reason = f"a part of it cannot be read: {err}"
            return self.replace(None, reason, before)
        self._unread = 0
        return queue

    def _is_lasting(self, err: DiskError) -> bool:
        """Whether this is a place that cannot be read, and no disk that is away for a while."""
        self._unread = self._unread + 1 if err.is_read else 0
        if self._unread < _MOST_UNREAD:
            return False
        self._unread = 0
        tables = SpoolTables.open_as_found(self._files.database)
        try:
            return tables.is_whole()
        finally:
            tables.close()

    def replace(
        self, source: SpoolTables | None, reason: str, before: PointLog | None
    ) -> DiskQueue:
        """A new database with what can be read of the old one, through ``source`` if it is open.

        Raises `DiskError`.
        """
        try:
            self._files.make_directory()
            self._files.drop_successor()
            rows = self._salvage(source)
            aside = self._files.succeed(self._clock.now())
            extra = {"component": "spool", "reason": reason, "rows": rows, "kept_as": str(aside)}
            self._logger.warning("spool set aside", extra=extra)
            tables = SpoolTables.open(self._files.database, self._bounds)
            return self._reckoned(tables, before)
        except DamagedError as err:
            raise DiskError(f"damaged again at once: {err}") from err

    def _salvage(self, source: SpoolTables | None) -> int:
        target = SpoolTables.open(self._files.successor, self._bounds)
        try:
            if source is not None:
                return salvage(source, target)
            return salvage_file(self._files.database, target)
        finally:
            target.close()

    def _reckoned(self, tables: SpoolTables, before: PointLog | None) -> DiskQueue:
        mark_file: WatermarkFile | None = None
        try:
            mark_file = WatermarkFile(self._files.mark)
            account, told = self._reckon(tables, mark_file.read())
            steady = before.steady if before is not None else SteadyClock(self._clock, account)
            ledger = PointLog(tables, account, self._bounds, steady, self._max_age_ms)
            queue = DiskQueue(ledger, mark_file, self._files)
            self._begin(queue, told)
        except BaseException:
            tables.close()
            if mark_file is not None:
                mark_file.close()
            raise
        return queue

    def _reckon(self, tables: SpoolTables, mark: Watermark | None) -> tuple[Meta, str]:
        with translated():
            sums = [tables.sums(table) for table in ("batches", "pending")]
            rows = Rows(sum(points for _, points, _ in sums), tables.last_place())
            found = reckon(tables.read_account(), mark, rows)
            if found.settled:
                tables.begin()
                tables.drop_settled(found.settled)
                tables.commit()
                points = sum(tables.sums(table)[1] for table in ("batches", "pending"))
            else:
                points = rows.points
        account, told = copy.copy(found.account), found.told
        if points < account.waiting:
            told = told or "rows are missing"
            account.damaged += account.waiting - points
        return account, told

    def _begin(self, queue: DiskQueue, told: str) -> None:
        """The first transaction: it shows at once whether this disk takes anything."""
        ledger = queue.ledger
        with ledger.transaction():
            pass
        if queue.trouble is not None:
            raise queue.trouble
        with translated():
            ledger.tables.checkpoint()
        if told:
            extra = {"component": "spool", "reason": told, "damaged": ledger.account.damaged}
            self._logger.warning("spool damaged", extra=extra)
