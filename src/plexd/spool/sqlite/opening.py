"""Opening a spool's files, whatever state they are in."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.sqlite.log import PointLog
from plexd.spool.sqlite.recovery import Rows, recover
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

# Attempts to open a file of which a part cannot be read, before it is given up.
_MOST_UNREAD = 3


class DiskQueue:
    """A log in its files, with its watermark.

    ``trouble`` is why nothing more should be written through this one, although what was
    written is safe.
    """

    def __init__(self, log: PointLog, watermark: WatermarkFile, files: SpoolFiles) -> None:
        self.log = log
        self.trouble: DiskError | None = None
        self._watermark = watermark
        self._files = files
        log.written = self._write_watermark
        self._identity = files.identity()
        self._watermark_identity = files.watermark_identity()

    def _write_watermark(self, log: LogIntake) -> None:
        try:
            self._watermark.write(Watermark.of(log.meta, log.sizes.front))
        except DiskError as err:
            self.trouble = err

    def check(self) -> None:
        """Raise if these are no longer the files behind the names, or no longer to be written."""
        if self.trouble is not None:
            raise self.trouble
        if self._files.identity() != self._identity:
            raise DamagedError("its files were removed or replaced")
        if self._files.watermark_identity() != self._watermark_identity:
            raise DiskError("its mark was removed or replaced")

    def abandon(self) -> None:
        """Close both without another write: one failed, or the names are those of other files."""
        self.log.tables.abandon()
        self._watermark.close()

    def close(self) -> None:
        """Close database and watermark."""
        self.log.close()
        self._watermark.close()


class Opener:
    """Opens the spool in ``files``: salvages what is damaged, counts what is missing."""

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
        self._unread = 0

    def open(self, before: PointLog | None = None) -> DiskQueue:
        """Return the queue; ``before`` is the log that this process used until now.

        Raises `DiskError`.
        """
        self._files.make_directory()
        self._files.finish_succession()
        try:
            tables = SpoolTables.open(self._files.database, self._budget)
            queue = self._recovered(tables, before)
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
        """Return whether a place cannot be read, rather than the disk being away for a while."""
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
        """Make a new database of what is readable in the old one, through ``source`` if open.

        Raises `DiskError`.
        """
        try:
            self._files.make_directory()
            self._files.drop_successor()
            rows = self._salvage(source)
            aside = self._files.succeed(self._clock.now())
            extra = {"component": "spool", "reason": reason, "rows": rows, "kept_as": str(aside)}
            self._logger.warning("spool set aside", extra=extra)
            tables = SpoolTables.open(self._files.database, self._budget)
            return self._recovered(tables, before)
        except DamagedError as err:
            raise DiskError(f"damaged again at once: {err}") from err

    def _salvage(self, source: SpoolTables | None) -> int:
        target = SpoolTables.open(self._files.successor, self._budget)
        try:
            if source is not None:
                return salvage(source, target)
            return salvage_file(self._files.database, target)
        finally:
            target.close()

    def _recovered(self, tables: SpoolTables, before: PointLog | None) -> DiskQueue:
        watermark: WatermarkFile | None = None
        try:
            watermark = WatermarkFile(self._files.watermark)
            meta, loss = self._recover(tables, watermark.read())
            steady = before.steady if before is not None else SteadyClock(self._clock, meta)
            log = PointLog(tables, meta, self._budget, steady, self._max_age_ms)
            queue = DiskQueue(log, watermark, self._files)
            self._begin(queue, loss)
        except BaseException:
            tables.close()
            if watermark is not None:
                watermark.close()
            raise
        return queue

    def _recover(self, tables: SpoolTables, watermark: Watermark | None) -> tuple[Meta, str]:
        with translated():
            sums = [tables.sums(table) for table in ("batches", "pending")]
            rows = Rows(sum(points for _, points, _ in sums), tables.last_place())
            found = recover(tables.read_meta(), watermark, rows)
            if found.front:
                tables.begin()
                tables.drop_through(found.front)
                tables.commit()
                points = sum(tables.sums(table)[1] for table in ("batches", "pending"))
            else:
                points = rows.points
        meta, loss = copy.copy(found.meta), found.loss
        if points < meta.waiting:
            loss = loss or "rows are missing"
            meta.damaged += meta.waiting - points
        return meta, loss

    def _begin(self, queue: DiskQueue, loss: str) -> None:
        """Commit a first transaction, which fails at once if this disk accepts no writes."""
        log = queue.log
        with log.transaction():
            pass
        if queue.trouble is not None:
            raise queue.trouble
        with translated():
            log.tables.checkpoint()
        if loss:
            extra = {"component": "spool", "reason": loss, "damaged": log.meta.damaged}
            self._logger.warning("spool damaged", extra=extra)
