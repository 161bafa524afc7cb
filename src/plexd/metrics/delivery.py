"""The reporting half of the manager: from the spool to the reporter, oldest first."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.api import APIError
from plexd.metrics.tasks import cut
from plexd.metrics.ticks import Ticks
from plexd.metrics.warnings import COMPONENT, Warnings

if TYPE_CHECKING:
    import logging

    from plexd.api import MetricBatch
    from plexd.clock import Clock
    from plexd.metrics.config import Config
    from plexd.metrics.ports import MetricReporter
    from plexd.spool import Spool

__all__ = ["Delivery", "DeliveryStatistics"]

_TOO_LARGE = 413
_REFUSED = {400, 413, 415, 422}


class DeliveryStatistics(Struct, frozen=True):
    """A snapshot of the deliveries since the start.

    Attributes:
        batches: batches accepted.
        points: points in them.
        failures: reports that were not accepted, now or for good.
    """

    batches: int
    points: int
    failures: int


class Delivery:
    """Empties the spool at every report tick, and early once a batch is full.

    One batch is under way at a time. A batch that was not accepted stays at the head and is
    tried again at the next tick; until then a full batch is no reason to send. What the control
    plane will never take (400, 415, 422) is given up, told and counted, so that the rest can go
    on; what is too large for it (413) goes in halves, down to single points.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        reporter: MetricReporter,
        node_id: str,
        logger: logging.Logger,
        clock: Clock,
    ) -> None:
        self._batch_size = config.batch_size
        self._interval = config.report_interval.total_seconds()
        self._spool = spool
        self._reporter = reporter
        self._node_id = node_id
        self._logger = logger
        self._warnings = Warnings(logger, clock=clock)
        self._clock = clock
        self._is_full = asyncio.Event()
        self._under_way: asyncio.Task[bool] | None = None
        self._batches = self._points = self._failures = 0
        self._is_silent = True

    def points_arrived(self) -> None:
        """To be called when the spool has grown."""
        if self._spool.statistics().buffered >= self._batch_size:
            self._is_full.set()

    async def run(self) -> None:
        """Report until cancelled. The first tick is spread over the interval by the node's id."""
        delay = spread(self._node_id) * self._interval
        ticks = Ticks(self._clock, self._interval, delay=delay)
        failed = False
        while True:
            await (ticks.wait() if failed else self._tick_or_full(ticks))
            failed = not await self._empty()

    async def _tick_or_full(self, ticks: Ticks) -> None:
        try:
            async with self._clock.timeout(ticks.seconds_left()):
                await self._is_full.wait()
        except TimeoutError:
            ticks.advance()

    async def _empty(self) -> bool:
        """Send until nothing waits; False as soon as a batch has to wait."""
        self._is_full.clear()
        try:
            await self._spool.seal(self._batch_size)
            return await self._send_sealed()
        except Exception as err:  # noqa: BLE001  # nothing a spool does may end the delivery
            self._tell(_reason(err))
            return False

    async def _send_sealed(self) -> bool:
        while (batch := await self._spool.head()) is not None:
            # A task of its own, so that a shutdown can let it finish instead of cutting it: a
            # report that is cut may have been accepted, and would be sent twice.
            self._under_way = asyncio.create_task(self._report(batch), name="report")
            await asyncio.wait([self._under_way])
            if not _succeeded(self._under_way):
                return False
        return True

    async def _report(self, batch: MetricBatch) -> bool:
        """Whether ``batch`` is settled: accepted, or refused for good."""
        try:
            refused = await self._send(batch)
            if batch.name is not None:
                await self._spool.acknowledge(batch.name, refused=refused)
        except Exception as err:  # noqa: BLE001  # any other exception means: not yet
            self._tell(_reason(err))
            return False
        except asyncio.CancelledError:
            self._tell("cut")
            raise
        if refused < len(batch):
            self._note_accepted(len(batch) - refused)
        return True

    def _note_accepted(self, points: int) -> None:
        """Count, and say once that reports arrive, and again when they do so after a failure."""
        self._batches += 1
        self._points += points
        if self._is_silent:
            extra = {"component": COMPONENT, "points": points}
            self._logger.info("metrics report accepted", extra=extra)
        self._is_silent = False

    async def _send(self, batch: MetricBatch) -> int:
        """Send ``batch``, in halves if it is too large; how many points were refused for good."""
        try:
            await self._reporter.report_metrics(self._node_id, batch)
        except APIError as err:
            if err.status_code == _TOO_LARGE and len(batch) > 1:
                middle = len(batch) // 2
                halves = (batch.piece(0, middle), batch.piece(middle, len(batch)))
                return sum([await self._send(half) for half in halves])
            if err.status_code not in _REFUSED:
                raise
            self._failures += 1
            extra = {"error": str(err), "refused": len(batch)}
            self._warnings.warn("metrics report failed", "refused", **extra)
            return len(batch)
        return 0

    def _tell(self, reason: str) -> None:
        self._failures += 1
        self._is_silent = True
        self._warnings.warn("metrics report failed", "", error=reason)

    async def flush(self, grace_seconds: float) -> None:
        """Last chance for what is left: the report under way, then the rest, within the grace."""
        try:
            async with self._clock.timeout(grace_seconds):
                if self._under_way is not None:
                    await asyncio.wait([self._under_way])
                await self._empty()
        except TimeoutError:
            pass
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if self._under_way is not None and not self._under_way.done():
            await cut(self._under_way, self._clock)

    def statistics(self) -> DeliveryStatistics:
        """What was delivered so far."""
        return DeliveryStatistics(
            batches=self._batches, points=self._points, failures=self._failures
        )


def spread(node_id: str) -> float:
    """A fraction in [0, 1) that is this node's own, so that a fleet never reports in step."""
    digest = hashlib.blake2b(node_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _succeeded(task: asyncio.Task[bool]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result()


def _reason(err: BaseException) -> str:
    return str(err) or type(err).__name__
