"""Sending one batch, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from plexd.log_once import LogOnce
from plexd.metrics.errors import ClashError, reason_of
from plexd.metrics.retry import Action, decide
from plexd.spool import Refusal

if TYPE_CHECKING:
    import logging

    from plexd.api import BatchName, MetricBatch, Receipt
    from plexd.clock import Clock
    from plexd.metrics.backoff import Backoff
    from plexd.metrics.pace import Pace
    from plexd.metrics.ports import MetricReporter
    from plexd.spool import Spool

# The shipped reporters have deadlines of seconds. This one is for a reporter that has none: its
# report that never ends would be the last one.
_TIMEOUT_SECONDS: Final = 600.0
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


class Sender:
    """Hands batches of a spool to a reporter, at the pace allowed and for ten minutes at most.

    Attributes:
        limit: how many points the next batch may have. It is halved after an answer of 413, until
            the points of that batch are delivered.
    """

    def __init__(
        self,
        reporter: MetricReporter,
        node_id: str,
        spool: Spool,
        batch_size: int,
        pace: Pace,
        backoff: Backoff,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self.limit = batch_size
        self._reporter = reporter
        self._node_id = node_id
        self._spool = spool
        self._batch_size = batch_size
        self._too_large: BatchName | None = None
        self._pace = pace
        self._backoff = backoff
        self._clock = clock
        self._logger = logger
        self._warnings = LogOnce(logger, "metrics", clock=clock)
        self._rejected = 0

    async def send(self, batch: MetricBatch) -> int:
        """Send ``batch``, settle with the spool what is final, and return the points accepted.

        Raises the reporter's error if another attempt may succeed, and `ClashError`.
        """
        try:
            receipt = await self._post(batch)
        except Exception as err:
            action = decide(err, 0).action
            if action is Action.SPLIT and len(batch) > 1:
                self._halve(batch)
                return 0
            if action in {Action.SPLIT, Action.SET_ASIDE}:
                await self._set_aside(batch, err)
                return 0
            if action is not Action.ACCEPT:
                raise
            receipt = None
        return await self._accept(batch, receipt)

    async def _post(self, batch: MetricBatch) -> Receipt | None:
        await self._pace.wait()
        async with self._clock.timeout(_TIMEOUT_SECONDS):
            return await self._reporter.report_metrics(self._node_id, batch)

    def _halve(self, batch: MetricBatch) -> None:
        self.limit = len(batch) // 2
        if self._too_large is None:
            self._too_large = batch.name

    def _settled(self, name: BatchName) -> None:
        """Send batches of the usual size again, once one that was too large is through."""
        whole = self._too_large
        if whole is None or whole.epoch != name.epoch or whole.last <= name.last:
            self.limit, self._too_large = self._batch_size, None

    async def _set_aside(self, batch: MetricBatch, err: Exception) -> None:
        await self._spool.set_aside(Refusal(batch, reason_of(err)))
        self._backoff.rejected(len(batch), err)
        if batch.name is not None:
            self._settled(batch.name)

    async def _accept(self, batch: MetricBatch, receipt: Receipt | None) -> int:
        name = batch.name
        if name is None:
            return len(batch)
        if receipt is not None and receipt.clash:
            await self._rename(name, receipt)
            raise ClashError(name.epoch)
        rejected = 0 if receipt is None else self._note_rejected(receipt, len(batch))
        await self._spool.acknowledge(name)
        self._settled(name)
        return len(batch) - rejected

    def _note_rejected(self, receipt: Receipt, sent: int) -> int:
        """Log points that were refused one by one since the last such line; return how many now."""
        rejected = max(0, min(receipt.rejected, sent))
        self._rejected += rejected
        if rejected:
            extra = {"rejected": self._rejected, "reason": receipt.reason}
            if self._warnings.warn("points rejected", "", **extra):
                self._rejected = 0
        return rejected

    async def _rename(self, name: BatchName, receipt: Receipt) -> None:
        await self._spool.rename(name, receipt.upto, receipt.newest or _BEGINNING)
        extra = {"component": "metrics", "epoch": name.epoch, "upto": receipt.upto}
        self._logger.error("another machine reports as this node", extra=extra)
