"""The reporting half of the manager: from the spool to the reporter, oldest first."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.background import cut
from plexd.metrics.backoff import Backoff
from plexd.metrics.pace import Pace
from plexd.metrics.sender import Sender
from plexd.metrics.ticks import Ticks
from plexd.spool.losses import LossLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.api import MetricBatch
    from plexd.clock import Clock
    from plexd.metrics.config import Config
    from plexd.metrics.ports import MetricReporter
    from plexd.spool import Spool

# The live rate is measured over two collections, so that it does not drop to zero in between.
_COLLECTIONS_MEASURED = 2


class DeliveryStatistics(Struct, frozen=True):
    """A snapshot of the deliveries since the start.

    Attributes:
        batches: batches accepted.
        points: points in them.
        failures: reports that were not accepted, now or for good.
        attempt: failures in a row; 0 when the last report was accepted.
        held: why nothing but a probe every few minutes is sent; empty when nothing is held.
        next_attempt_seconds: how long until the next attempt; 0 when there was no failure.
    """

    batches: int
    points: int
    failures: int
    attempt: int = 0
    held: str = ""
    next_attempt_seconds: float = 0.0


class Delivery:
    """Empties the spool at every report tick, and early once a batch is full.

    One batch is under way at a time, oldest first. A batch that was not accepted stays at the
    head and is tried again when `plexd.metrics.retry` says so; until then a full batch is no
    reason to send. What will never be accepted is set aside, so that the rest can be sent.
    ``random`` gives fractions in [0, 1) and spreads the attempts.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        reporter: MetricReporter,
        node_id: str,
        logger: logging.Logger,
        clock: Clock,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._batch_size = config.batch_size
        self._interval = config.report_interval.total_seconds()
        self._spool = spool
        self._node_id = node_id
        self._clock = clock
        self._backoff = Backoff(logger, clock, random)
        window = _COLLECTIONS_MEASURED * config.collect_interval.total_seconds()
        self._pace = Pace(config.batch_size, window, clock)
        self._sender = Sender(
            reporter, node_id, spool, config.batch_size, self._pace, self._backoff, clock, logger
        )
        self._losses = LossLog(spool.statistics, logger, clock)
        self._is_full = asyncio.Event()
        self._under_way: asyncio.Task[bool] | None = None
        self._batches = self._points = self._settled = 0

    def points_arrived(self, points: int) -> None:
        """Note that the spool has grown by a collection of ``points``."""
        self._pace.produced(points)
        self._losses.look()
        if self._spool.statistics().waiting >= self._batch_size:
            self._is_full.set()

    async def run(self) -> None:
        """Report until cancelled. The first tick is spread over the interval by the node's id."""
        delay = spread(self._node_id) * self._interval
        ticks = Ticks(self._clock, self._interval, delay=delay)
        while True:
            await self._tick_or_full(ticks)
            while not await self._empty():
                await self._clock.sleep(self._backoff.seconds_left())

    async def _tick_or_full(self, ticks: Ticks) -> None:
        try:
            async with self._clock.timeout(ticks.seconds_left()):
                await self._is_full.wait()
        except TimeoutError:
            ticks.advance()

    async def _empty(self) -> bool:
        """Send what waits now and return True, or False as soon as a batch has to wait."""
        self._is_full.clear()
        try:
            return await self._send_waiting()
        except Exception as err:  # noqa: BLE001  # nothing a spool does may end the delivery
            self._backoff.failed(err)
            return False

    async def _send_waiting(self) -> bool:
        # A spool that was not open yet does not know how much waits; its head does.
        goal = self._settled + max(1, self._spool.statistics().waiting)
        while self._settled < goal:
            batch = await self._spool.head(self._sender.limit)
            if batch is None:
                return True
            # A task of its own, so that a shutdown can wait for it: a report that is cut may have
            # been accepted, and would be sent twice.
            self._under_way = asyncio.create_task(self._report(batch), name="report")
            await asyncio.wait([self._under_way])
            if not _succeeded(self._under_way):
                return False
        return True

    async def _report(self, batch: MetricBatch) -> bool:
        """Send ``batch`` and return whether the next one may follow at once."""
        waiting = self._spool.statistics().waiting
        try:
            accepted = await self._sender.send(batch)
        except Exception as err:  # noqa: BLE001  # the retry policy knows what each one means
            self._backoff.failed(err)
            return False
        except asyncio.CancelledError:
            self._backoff.failed(TimeoutError("cut"))
            raise
        self._count(accepted)
        self._settled += max(0, waiting - self._spool.statistics().waiting)
        return True

    def _count(self, accepted: int) -> None:
        self._backoff.succeeded(accepted)
        self._points += accepted
        if accepted:
            self._batches += 1

    async def flush(self, grace_seconds: float) -> None:
        """Finish the report under way and then send the rest, both within the grace.

        The rest is sent only if no attempt is waited for: a control plane that is down, or that
        asked for a pause, gets no request.
        """
        self._pace.lift()
        try:
            async with self._clock.timeout(grace_seconds):
                if self._under_way is not None:
                    await asyncio.wait([self._under_way])
                if self._backoff.seconds_left() <= 0:
                    await self._empty()
        except TimeoutError:
            pass
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if self._under_way is not None and not self._under_way.done():
            await cut(self._under_way, self._clock)

    def statistics(self) -> DeliveryStatistics:
        """What was delivered so far, and why no more."""
        return DeliveryStatistics(
            batches=self._batches,
            points=self._points,
            failures=self._backoff.failures,
            attempt=self._backoff.attempt,
            held=self._backoff.held,
            next_attempt_seconds=self._backoff.seconds_left(),
        )


def spread(node_id: str) -> float:
    """This node's own fraction in [0, 1), so that a fleet never reports in step."""
    digest = hashlib.blake2b(node_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _succeeded(task: asyncio.Task[bool]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result()
