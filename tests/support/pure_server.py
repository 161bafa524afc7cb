"""The server's marks and their cache as they are, with lists in place of tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from plexd_server.store.duckdb.changeset import MarkCache, StagedReports
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
        receipts = [staged.add(report).receipt for report in reports]
        changes = staged.changeset(0)
        for mark in changes.marks:
            assert mark.ordinal > max((known.ordinal for known in self.tables.values()), default=0)
        for _, epoch in changes.removed:
            self.tables.pop(epoch, None)
        self.tables |= {mark.epoch: mark for mark in changes.marks}
        self.losses += [loss for _, loss in changes.losses]
        self.points += [point for report in changes.points for point in report.points]
        staged.apply()
        return receipts

    def fail(self, reports: Sequence[Report]) -> None:
        """Have the commit of the reports fail."""
        staged = StagedReports(self.marks)
        for report in reports:
            staged.add(report)
        staged.changeset(0)

    def restart(self) -> None:
        self.marks = MarkCache(self.of_node(), self)

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
