"""The server's marks and their cache as they are, with lists in place of tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from plexd_server.store.embedded.mark_cache import KnownMarks, MarkCache
from plexd_server.store.embedded.staging import StagedReports
from plexd_server.store.marks import Mark, make_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricPoint, Receipt
    from plexd_server.store import Ledger, Loss, Report

__all__ = ["PureServer"]


class PureServer:
    """Stores the reports of one node; ``copy.deepcopy`` makes a backup."""

    def __init__(self) -> None:
        self.tables: dict[str, Mark] = {}
        self.losses: list[Loss] = []
        self.points: list[MetricPoint] = []
        self.restart()

    def write(self, reports: Sequence[Report]) -> list[Receipt]:
        staged = StagedReports(self.marks)
        steps = [staged.add(report) for report in reports]
        for step, record in steps:
            for epoch in record.removed if record else ():
                self.tables.pop(epoch, None)
            for mark in record.marks if record else ():
                newest = max((known.ordinal for known in self.tables.values()), default=0)
                assert mark.ordinal > newest
                self.tables[mark.epoch] = mark
            self.losses += record.losses if record else ()
            self.points += step.points
        staged.apply(0)
        return [step.receipt for step, _ in steps]

    def fail(self, reports: Sequence[Report]) -> None:
        """Have the commit of the reports fail."""
        staged = StagedReports(self.marks)
        for report in reports:
            staged.add(report)

    def restart(self) -> None:
        self.marks = MarkCache(KnownMarks(self.of_node()), self)

    def ledger(self) -> Ledger:
        known = self.tables | {mark.epoch: mark for mark in self.marks.of_node("n")}
        return make_ledger(known.values(), self.losses)

    def find(self, node_id: str, epoch: str) -> Mark | None:
        del node_id
        return self.tables.get(epoch)

    def of_node(self, node_id: str = "n") -> list[Mark]:
        del node_id
        return sorted(self.tables.values(), key=lambda mark: mark.ordinal)

    def stored(self) -> Counter[str]:
        return Counter(point.peer_id for point in self.points)

    def close(self) -> None:
        return None
