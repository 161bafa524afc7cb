"""A spool that outlives the process, the machine's power and most of what a disk can do."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.spool.budget import Budget
from plexd.spool.losses import LossLog
from plexd.spool.port import Refusal, Spool, SpoolStatistics
from plexd.spool.rows import runs_of
from plexd.spool.sqlite.failover import Failover
from plexd.spool.sqlite.files import SpoolFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from plexd.api import BatchName, MetricBatch, MetricPoint


_T = TypeVar("_T")


class DiskSpool(AsyncClosing):
    """Keeps points in ``directory``, at most ``max_bytes`` of files and for ``max_age``.

    What was appended is on the disk when `append` returns; the format and what happens when
    something fails is in ``docs/spec/spool.md``. It opens on entering or with the first call,
    which raises `SpoolLockedError` if another process has the directory; nothing else a disk does
    is ever raised. The points of another node than ``node_id`` are set aside, beside the directory,
    until that node's id comes back; without an id nothing is.

    With a ``logger`` it logs there what it loses, too. The pipeline does so for every spool, so the
    agent gives none.

    All work is done in one thread of its own, call by call: the event loop never waits for the
    disk. A call whose caller is cancelled is completed all the same.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node_id: str = "",
        max_bytes: int = 256 * 1024 * 1024,
        max_age: timedelta = timedelta(days=7),
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        budget = Budget.of(max_bytes, max_age)
        self._failover = Failover(
            SpoolFiles(Path(directory), node_id, budget.ballast),
            budget,
            self._clock,
            logger or logging.getLogger("plexd.spool"),
        )
        self._logger = logger
        self._losses: LossLog | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._is_open = self._is_closed = False
        # As of the last call, and when that was: replaced in one step.
        self._seen = (SpoolStatistics(), 0.0)

    async def __aenter__(self) -> Self:
        await self._call(lambda: None)
        return self

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Add one collection; on return it is on the disk, unless `statistics` says not."""
        if runs := runs_of(points):
            await self._call(lambda: self._failover.append(runs))

    async def head(self, limit: int) -> MetricBatch | None:
        return await self._call(lambda: self._failover.first(lambda log: log.head(limit)))

    async def acknowledge(self, name: BatchName) -> None:
        await self._call(lambda: self._failover.first(lambda log: log.acknowledge(name)))

    async def set_aside(self, refusal: Refusal) -> None:
        """Give up a batch; the newest 64 of these, up to 1 MiB, are kept."""
        await self._call(lambda: self._failover.first(lambda log: log.set_aside(refusal)))

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        await self._call(lambda: self._failover.first(lambda log: log.rename(name, upto, newest)))

    async def dead_letters(self) -> Sequence[Refusal]:
        return tuple(await self._call(self._failover.dead_letters))

    def statistics(self) -> SpoolStatistics:
        """Return counts since the spool's directory was new, as of the last call that was done."""
        seen, moment = self._seen
        if not seen.stored_bytes:
            return seen
        waited = seen.oldest_seconds + self._clock.monotonic() - moment
        return msgspec.structs.replace(seen, oldest_seconds=waited)

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the spool's thread, to its end even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.shield(loop.run_in_executor(self._thread, self._do, work))
        finally:
            if self._losses is not None:
                self._losses.look()

    def _do(self, work: Callable[[], _T]) -> _T:
        if not self._is_open:
            self._open()
        try:
            return work()
        finally:
            self._look()

    def _open(self) -> None:
        self._failover.open()
        self._is_open = True
        self._look()
        if self._logger is not None:
            self._losses = LossLog(self.statistics, self._logger, self._clock)

    def _look(self) -> None:
        self._seen = (self._failover.statistics(), self._clock.monotonic())

    async def aclose(self) -> None:
        """Bring to the disk what can be brought, and close the files."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._close))
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._is_open:
            self._failover.close()
            self._look()


if TYPE_CHECKING:
    _: type[Spool] = DiskSpool
