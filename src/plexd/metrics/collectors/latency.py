"""Group ``latency``: the round trip to every peer (seed, "LatencyCollector")."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plexd.api import GROUP_LATENCY, LatencyResult, MetricPoint
from plexd.clock import Clock, SystemClock
from plexd.log_once import LogOnce
from plexd.metrics.collectors.sweep import UNREACHABLE, Sweep
from plexd.metrics.errors import CollectError, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from plexd.metrics.ports import Collector, PeerLister, Pinger

_LOGGED_PER_CYCLE = 20
_EVENT = "latency ping failed"


class LatencyCollector:
    """One point per peer and cycle, in the lister's order, stamped with the cycle's start.

    All peers are pinged side by side. A failed ping is a point with ``rtt_nano`` -1 and a
    warning; beyond 20 failing peers in one cycle, the others share one line. The first answer after
    a failure that was logged is logged in the same way. ``failures`` are the peers that failed in
    the latest cycle, each with its reason.
    """

    def __init__(
        self,
        pinger: Pinger,
        lister: PeerLister,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._pinger = pinger
        self._lister = lister
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("plexd.metrics")
        self._warnings = LogOnce(self._logger, "metrics", clock=self._clock)
        self._unanswered = set[str]()  # peers whose failure is in the log
        self.failures: Sequence[tuple[str, BaseException]] = ()

    async def collect(self) -> AsyncIterator[MetricPoint]:
        """Yield each point as soon as it and all before it are known.

        When cancelled, it yields the pings that are complete by then before the cancellation
        goes on, and leaves out the others. Raises `CollectError` only when the peers cannot be
        listed.
        """
        now = self._clock.now()
        async with Sweep(self._pinger, self._peer_ids()) as sweep:
            yielded = 0
            try:
                for yielded, peer_id in enumerate(sweep.peers):  # used below
                    rtt = sweep.rtts[yielded]
                    if rtt is None:
                        rtt = await sweep.result(yielded)
                    yield _point(now, peer_id, rtt)
            except asyncio.CancelledError:
                for peer_id, rtt in sweep.finished(yielded):
                    yield _point(now, peer_id, rtt)
                raise
            finally:
                self.failures = sweep.failures
                self._log_answers(sweep)
                self._warn(sweep.failures)

    def _peer_ids(self) -> Sequence[str]:
        try:
            return tuple(self._lister.peer_ids())
        except Exception as err:
            raise CollectError(f"metrics: latency: {err}") from err

    def _warn(self, failures: list[tuple[str, BaseException]]) -> None:
        for peer_id, err in failures[:_LOGGED_PER_CYCLE]:
            if self._warnings.warn(_EVENT, peer_id, peer_id=peer_id, error=reason_of(err)):
                self._unanswered.add(peer_id)
        rest = failures[_LOGGED_PER_CYCLE:]
        if rest:
            first, err = rest[0]
            reason = f"{len(rest)} more peers failed, the first: {reason_of(err)}"
            if self._warnings.warn(_EVENT, "", peer_id=first, error=reason, peers=len(rest)):
                self._unanswered.update(peer_id for peer_id, _ in rest)

    def _log_answers(self, sweep: Sweep) -> None:
        if not self._unanswered:
            return
        self._unanswered.intersection_update(sweep.peers)
        answered = [p for p, rtt in zip(sweep.peers, sweep.rtts, strict=True) if _is_answer(rtt)]
        back = [peer_id for peer_id in answered if peer_id in self._unanswered]
        self._unanswered.difference_update(back)
        for peer_id in back[:_LOGGED_PER_CYCLE]:
            self._log_answer(peer_id)
        rest = back[_LOGGED_PER_CYCLE:]
        if rest:
            self._log_answer(rest[0], peers=len(rest))

    def _log_answer(self, peer_id: str, peers: int = 1) -> None:
        extra = {"component": "metrics", "peer_id": peer_id, "peers": peers}
        self._logger.info("latency ping answered", extra=extra)


def _is_answer(rtt: int | None) -> bool:
    return rtt is not None and rtt != UNREACHABLE


def _point(now: datetime, peer_id: str, rtt: int) -> MetricPoint:
    data = LatencyResult(peer_id, rtt)
    return MetricPoint(timestamp=now, group=GROUP_LATENCY, peer_id=peer_id, data=data)


if TYPE_CHECKING:
    _: type[Collector] = LatencyCollector
