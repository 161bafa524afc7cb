"""One batch to two destinations (seed, "MultiReporter")."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from plexd.api import DecodeError, is_continuation
from plexd.background import cut
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.log_once import LogOnce
from plexd.metrics.errors import reason_of

if TYPE_CHECKING:
    from plexd.api import MetricBatch, Receipt
    from plexd.metrics.ports import MetricReporter

# How much longer than for the platform the reporter waits for the local leg.
_EXTRA_SECONDS = 1.0
# Local reports that may go on in the background; more of them means the endpoint is down.
_MOST_IN_BACKGROUND = 4


class MultiReporter(AsyncClosing):
    """Sends to both at once; the platform's outcome counts, the local endpoint's never does.

    A local report that takes over a second longer than the platform's goes on in the background
    until it ends or this reporter is closed. While four of them are under way, further batches
    skip the local endpoint with a warning. A point that has a name goes to the local endpoint once,
    however often the platform gets it and in whichever batch. Closing does not close the two.
    """

    def __init__(
        self,
        platform: MetricReporter,
        local: MetricReporter,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._platform = platform
        self._local = local
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("plexd.metrics")
        self._warnings = LogOnce(self._logger, "metrics", clock=self._clock)
        self._logs_next_success = False
        self._in_background: set[asyncio.Task[None]] = set()
        # The last place that went to the local endpoint, and its epoch.
        self._epoch, self._place = "", 0
        self._closed = False

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> Receipt | None:
        """Return or raise what the platform did; log what the local endpoint raised."""
        local = self._start_local(node_id, batch)
        try:
            return await self._platform.report_metrics(node_id, batch)
        except asyncio.CancelledError:
            if local is not None:
                local.cancel()
            raise
        finally:
            if local is not None:
                await self._wait_for(local)

    def _start_local(self, node_id: str, batch: MetricBatch) -> asyncio.Task[None] | None:
        fresh = None if self._closed else self._unseen(batch)
        if fresh is None:
            return None
        if len(self._in_background) >= _MOST_IN_BACKGROUND:
            self._warn("skipped: the endpoint has not answered earlier reports yet")
            return None
        task = asyncio.create_task(self._report_locally(node_id, fresh), name="local report")
        self._in_background.add(task)
        task.add_done_callback(self._in_background.discard)
        return task

    def _unseen(self, batch: MetricBatch) -> MetricBatch | None:
        """Return the part that did not go to the local endpoint before, None if there is none.

        Points that were renamed after a clash keep their places, and so are known again.
        """
        name = batch.name
        if name is None:
            return batch
        if name.epoch != self._epoch and not is_continuation(name.epoch, self._epoch):
            self._place = 0
        seen = max(0, self._place - name.first + 1)
        self._epoch, self._place = name.epoch, max(self._place, name.last)
        if not seen:
            return batch
        try:
            return batch.piece(seen, len(batch)) if seen < len(batch) else None
        except DecodeError as err:  # kept by a version that knew other points
            self._warn(reason_of(err))
            return None

    async def _report_locally(self, node_id: str, batch: MetricBatch) -> None:
        try:
            await self._local.report_metrics(node_id, batch)
        except Exception as err:  # noqa: BLE001  # the local leg's failure is never the caller's
            self._warn(reason_of(err))
        else:
            self._log_success(len(batch))

    async def _wait_for(self, local: asyncio.Task[None]) -> None:
        with suppress(TimeoutError):  # it goes on in the background
            async with self._clock.timeout(_EXTRA_SECONDS):
                await asyncio.wait([local])

    def _warn(self, reason: str) -> None:
        if self._warnings.warn("local metrics report failed", "", error=reason):
            self._logs_next_success = True

    def _log_success(self, points: int) -> None:
        """Log the first success after a failure that was logged."""
        if self._logs_next_success:
            extra = {"component": "metrics", "points": points}
            self._logger.info("local metrics report accepted", extra=extra)
        self._logs_next_success = False

    async def aclose(self) -> None:
        """Cancel the reports in the background and start no more; idempotent."""
        self._closed = True
        reports = tuple(self._in_background)
        await asyncio.gather(*(cut(task, self._clock) for task in reports))


if TYPE_CHECKING:
    _: type[MetricReporter] = MultiReporter
