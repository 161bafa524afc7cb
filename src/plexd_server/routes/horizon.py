"""Which points are ahead of the clock, and whose clock it is that is wrong.

A point of the far future would be a node's newest until then. So points more than 24 hours ahead
are rejected one by one. But when most nodes are ahead, it is this server's clock that is behind:
then nothing is rejected, and every report with such points is answered 503 until the clock is set.
Any past is allowed: a spool may be delivered weeks later.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from plexd.log_once import LogOnce
from plexd_server.store import HORIZON
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from plexd.api import MetricBatch
    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_RECENT_SECONDS: Final = 600.0
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_RETRY: Final = {"Retry-After": "60"}


class Horizon:
    """Compares the time stamps of reports with this server's clock.

    It keeps one entry for each node that reported within ten minutes by the monotonic clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._warnings = LogOnce(_LOG, "server", clock=clock)
        self._nodes: dict[str, tuple[float, bool]] = {}
        self._ahead = 0

    def ahead(self, node_id: str, batch: MetricBatch, now: datetime) -> tuple[int, ...]:
        """Return the indexes of the points that are ahead of ``now`` by more than 24 hours.

        Raises `Problem` 503 if more than half of the nodes that reported within ten minutes sent
        such points, this one included.
        """
        latest = now + HORIZON if now < _LAST - HORIZON else _LAST
        found = tuple(i for i, point in enumerate(batch) if point.timestamp > latest)
        if batch:
            self._note(node_id, is_ahead=bool(found))
        if found and 2 * self._ahead > len(self._nodes):
            self._refuse(max(batch[index].timestamp for index in found), now)
        return found

    def _note(self, node_id: str, *, is_ahead: bool) -> None:
        now = self._clock.monotonic()
        self._drop(node_id)
        self._nodes[node_id] = (now, is_ahead)  # the latest is last
        self._ahead += is_ahead
        while self._nodes[oldest := next(iter(self._nodes))][0] < now - _RECENT_SECONDS:
            self._drop(oldest)

    def _drop(self, node_id: str) -> None:
        _, was_ahead = self._nodes.pop(node_id, (0.0, False))
        self._ahead -= was_ahead

    def _refuse(self, newest: datetime, now: datetime) -> None:
        theirs, ours = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (newest, now))
        nodes = {"ahead": self._ahead, "nodes": len(self._nodes)}
        self._warnings.warn(
            "clock in doubt", "", clock=ours, reported=theirs, **nodes, hint="set this clock"
        )
        raise Problem(
            503,
            f"the server's clock is in doubt: it says {ours}, points of {theirs} were reported, "
            "and most nodes are ahead like that; set whichever clock is wrong",
            headers=_RETRY,
        )
