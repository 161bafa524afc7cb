"""Sending one batch: whole or, where that is too large, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import DecodeError, MetricBatch
from plexd.metrics.errors import reason_of
from plexd.metrics.retry import Action, decide
from plexd.spool import Refusal

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.metrics.backoff import Backoff
    from plexd.metrics.pace import Pace
    from plexd.metrics.ports import MetricReporter

# The shipped reporters have deadlines of seconds. This one is for a reporter that has none: its
# report that never ends would be the last one.
_TIMEOUT_SECONDS = 600.0


class Sender:
    """Hands batches to a reporter, at the pace allowed and for at most ten minutes each."""

    def __init__(
        self,
        reporter: MetricReporter,
        node_id: str,
        pace: Pace,
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self._reporter = reporter
        self._node_id = node_id
        self._pace = pace
        self._backoff = backoff
        self._clock = clock

    async def send(self, batch: MetricBatch) -> list[Refusal]:
        """Send ``batch``, in halves if it is too large, and return what was rejected for good.

        Raises the reporter's error if another attempt may succeed. Pieces accepted by then are
        sent again with the whole batch; the receiver knows them by the batch's name.
        """
        try:
            await self._post(batch)
        except Exception as err:
            action = decide(err, 0).action
            if action is Action.SPLIT and len(batch) > 1:
                return await self._send_halves(batch)
            if action in {Action.SPLIT, Action.SET_ASIDE}:
                return self._rejected(batch, err)
            if action is not Action.ACCEPT:
                raise
        return []

    async def _post(self, batch: MetricBatch) -> None:
        await self._pace.wait()
        async with self._clock.timeout(_TIMEOUT_SECONDS):
            await self._reporter.report_metrics(self._node_id, batch)

    async def _send_halves(self, batch: MetricBatch) -> list[Refusal]:
        """Send the halves in ascending order, as receivers expect.

        The second half reports losses only if nothing of the first one was accepted.
        """
        middle = len(batch) // 2
        try:
            first = batch.piece(0, middle, dropped=batch.dropped)
            rest = batch.piece(middle, len(batch))
        except DecodeError as err:  # sealed by a version that knew other points
            return self._rejected(batch, err)
        rejected = await self.send(first)
        if sum(len(refusal.batch) for refusal in rejected) == middle:
            rest = batch.piece(middle, len(batch), dropped=batch.dropped)
        return rejected + await self.send(rest)

    def _rejected(self, batch: MetricBatch, err: Exception) -> list[Refusal]:
        self._backoff.rejected(len(batch), err)
        return [Refusal(batch, reason_of(err))]
