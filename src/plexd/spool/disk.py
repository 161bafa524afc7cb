"""A spool that outlives the process, the machine's power and most of what a disk can do."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from plexd.api import BatchName, MetricBatch, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.spool.port import Refusal, Spool, SpoolStatistics
from plexd.spool.sqlite.budget import Budget
from plexd.spool.sqlite.failover import Failover, Parts
from plexd.spool.sqlite.files import SpoolFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_T = TypeVar("_T")
_COUNTS = ("appended", "acknowledged", "refused", "evicted", "expired", "damaged")


class DiskSpool(AsyncClosing):
    """Keeps points in ``directory``, at most ``max_bytes`` of files and for ``max_age``.

    What was appended is on the disk when `append` returns; the format and what happens when
    something fails is in ``docs/spec/spool.md``. It opens on entering or with the first call,
    which raises `SpoolLockedError` if another process has the directory; nothing else a disk does
    is ever raised.

    All work is done in one thread of its own, call by call: the event loop never waits for the
    disk. A call whose caller is cancelled is completed all the same.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        max_age: timedelta = timedelta(days=7),
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._failover = Failover(
            SpoolFiles(Path(directory)),
            Budget.of(max_bytes),
            int(max_age.total_seconds() * 1000),
            self._clock,
            logger or logging.getLogger("plexd.spool"),
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._is_open = self._is_closed = False
        # As of the last call, and since when the oldest point waits: replaced in one step.
        self._seen: tuple[SpoolStatistics, float | None] = (SpoolStatistics(), None)

    async def __aenter__(self) -> Self:
        await self._call(lambda: None)
        return self

    async def append(self, points: Sequence[MetricPoint]) -> None:
        """Add one collection; on return it is on the disk, unless `statistics` says not."""
        batch = MetricBatch(points)
        if len(batch):
            await self._call(lambda: self._failover.append(batch.to_json(), len(batch)))

    async def seal(self, limit: int) -> None:
        """Freeze what is buffered into batches, in one or a few transactions."""
        await self._call(lambda: self._failover.seal(limit))

    async def head(self) -> MetricBatch | None:
        """Return the oldest batch, checked against its digest."""
        return await self._call(self._failover.head)

    async def acknowledge(self, name: BatchName, *, refused: Sequence[Refusal] = ()) -> None:
        """Forget the head; of what was refused the newest 64 pieces, up to 1 MiB, are kept."""
        await self._call(lambda: self._failover.acknowledge(name, refused))

    async def dead_letters(self) -> Sequence[Refusal]:
        """Return what was refused, also by the processes before."""
        return tuple(await self._call(self._failover.dead_letters))

    def statistics(self) -> SpoolStatistics:
        """Return counts since the spool's directory was new, as of the last call that was done."""
        seen, since = self._seen
        if since is None:
            return seen
        waited = max(0.0, self._clock.monotonic() - since)
        return msgspec.structs.replace(seen, oldest_seconds=waited)

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the spool's thread, to its end even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self._do, work))

    def _do(self, work: Callable[[], _T]) -> _T:
        if not self._is_open:
            self._failover.open()
            self._is_open = True
        try:
            return work()
        finally:
            self._look(self._failover.parts())

    def _look(self, parts: Parts) -> None:
        logs = parts.logs
        sizes = [log.sizes for log in logs]
        buffered = sum(size.buffered for size in sizes) + parts.in_doubt
        waiting = sum(log.meta.waiting for log in logs) + parts.in_doubt
        counts = {name: sum(getattr(log.meta, name) for log in logs) for name in _COUNTS}
        counts["appended"] += parts.in_doubt
        ages = [
            log.steady.now_ms() - log.sizes.oldest_ms
            for log in logs
            if log.sizes.oldest_ms is not None
        ]
        since = self._clock.monotonic() - max(ages) / 1000 if ages else None
        seen = SpoolStatistics(
            **counts,
            buffered=buffered,
            sealed=waiting - buffered,
            batches=sum(size.batches for size in sizes),
            stored_bytes=sum(size.bytes for size in sizes),
            dead_letters=sum(size.dead_letters for size in sizes),
            degraded=parts.degraded,
        )
        self._seen = (seen, since)

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
            self._look(self._failover.parts())


if TYPE_CHECKING:
    _: type[Spool] = DiskSpool
