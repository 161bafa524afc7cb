"""Opening a spool's files, whatever state they are in."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from plexd.spool.epoch import new_epoch
from plexd.spool.errors import DamagedError, DiskError
from plexd.spool.log import PointLog
from plexd.spool.sqlite.recovery import Recovery, count_points, pass_over, recover
from plexd.spool.sqlite.salvage import salvage, salvage_file
from plexd.spool.sqlite.tables import SpoolTables
from plexd.spool.sqlite.watermark import Watermark, WatermarkFile
from plexd.spool.steady_clock import SteadyClock

if TYPE_CHECKING:
    import logging

    from plexd.clock import Clock
    from plexd.spool.budget import Budget
    from plexd.spool.meta import Meta
    from plexd.spool.sqlite.files import SpoolFiles

# Attempts to open a file of which a part cannot be read, before it is given up.
_MOST_UNREAD = 3


class DiskLog:
    """A log in its files, with its watermark.

    ``trouble`` is why nothing more should be written through this one, although what was
    written is safe.
    """

    def __init__(self, watermark: WatermarkFile, files: SpoolFiles) -> None:
        self.log: PointLog
        self.tables: SpoolTables
        self.trouble: DiskError | None = None
        self._watermark = watermark
        self._files = files
        self._identity = files.identity()
        self._watermark_identity = files.watermark_identity()

    def write_watermark(self, meta: Meta, front: int) -> None:
        """Note beside the database how far it has come, after a commit."""
        try:
            self._watermark.write(Watermark.of(meta, front))
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
        self.tables.abandon()
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

    def open(self, before: PointLog | None = None) -> DiskLog:
        """Return the log; ``before`` is the one that this process used until now.

        Raises `DiskError`.
        """
        self._files.make_directory()
        self._files.finish_succession()
        try:
            tables = SpoolTables.open(self._files.database, self._budget)
            opened = self._recovered(tables, before)
        except DamagedError as err:
            return self.replace(str(err), before)
        except DiskError as err:
            if not self._is_lasting(err):
                raise
            return self.replace(f"a part of it cannot be read: {err}", before)
        self._unread = 0
        return opened

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
        self, reason: str, before: PointLog | None, source: SpoolTables | None = None
    ) -> DiskLog:
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

    def _recovered(self, tables: SpoolTables, before: PointLog | None) -> DiskLog:
        watermark: WatermarkFile | None = None
        try:
            watermark = WatermarkFile(self._files.watermark)
            meta, loss = self._recover(tables, watermark.read())
            meta.chain.begin(new_epoch(self._clock))
            opened = DiskLog(watermark, self._files)
            steady = before.steady if before is not None else SteadyClock(self._clock, meta)
            write = opened.write_watermark
            opened.tables = tables
            opened.log = PointLog(tables, meta, self._budget, steady, self._max_age_ms, write)
            self._begin(opened, tables, loss)
        except BaseException:
            tables.close()
            if watermark is not None:
                watermark.close()
            raise
        return opened

    def _recover(self, tables: SpoolTables, watermark: Watermark | None) -> tuple[Meta, str]:
        points, last = tables.sums().points, tables.last_id()
        found = recover(tables.read_meta(), watermark, points, last)
        if found.front:
            with tables.transaction():
                self._drop_passed(tables, found)
        waiting, missing = count_points(found.meta.chain, tables.outlines())
        meta, loss = found.meta, found.loss
        meta.chain.lose(found.unseen)
        if waiting < meta.waiting:
            loss = loss or "rows are missing"
            meta.chain.lose(max(0, meta.waiting - waiting - missing))
            meta.damaged += meta.waiting - waiting
        return meta, loss

    def _drop_passed(self, tables: SpoolTables, found: Recovery) -> None:
        passed = itertools.takewhile(lambda row: row.id <= found.front, tables.outlines())
        pass_over(found.meta.chain, passed)
        tables.drop_through(found.front)

    def _begin(self, opened: DiskLog, tables: SpoolTables, loss: str) -> None:
        """Commit a first transaction, which fails at once if this disk accepts no writes."""
        opened.log.commit()
        if opened.trouble is not None:
            raise opened.trouble
        tables.checkpoint()
        if loss:
            damaged = opened.log.meta.damaged
            extra = {"component": "spool", "reason": loss, "damaged": damaged}
            self._logger.warning("spool damaged", extra=extra)
