"""What some records of the journal add to the tables, ready to be inserted together."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from plexd_server.store.duckdb import schema
from plexd_server.store.duckdb.bodies import read_body
from plexd_server.store.duckdb.columns import GroupColumns, columns_of, point_columns

if TYPE_CHECKING:
    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.journal import Record
    from plexd_server.store.marks import Mark


class Chunk:
    """Rows of the records after ``after``; `add` moves on, record by record.

    Attributes:
        after: the number of the record before the first one in it.
        upto: the number of the last record in it.
        weight: how many points it counts as; a record without points counts as one.
        removed: of each node, the epochs of which the marks are not kept any more.
    """

    def __init__(self, after: int) -> None:
        self.after = self.upto = after
        self.weight = 0
        self.removed: dict[str, list[str]] = defaultdict(list)
        self._points: dict[str, GroupColumns] = {}
        self._marks: dict[tuple[str, str], Mark] = {}
        self._losses: list[tuple[object, ...]] = []

    def add(self, number: int, record: Record | None) -> None:
        """Add a record, or pass over one that adds nothing."""
        if record is not None:
            self._add_points(record)
            self._add_marks(record)
            self._losses += [(record.node_id, *astuple(loss)) for loss in record.losses]
        self.weight += record.weight if record else 1
        self.upto = number

    def _add_points(self, record: Record) -> None:
        if not record.points:
            return
        for group, points in read_body(record.body(), record.omitted).items():
            if group not in self._points:
                is_other = group == schema.OTHER
                made = GroupColumns(schema.OTHER_TYPES) if is_other else point_columns(group)
                self._points[group] = made
            self._points[group].add(record.node_id, record.received_at, points)

    def _add_marks(self, record: Record) -> None:
        """Keep the last mark of each epoch; one that was removed may have begun again since."""
        for epoch in record.removed:
            self._marks.pop((record.node_id, epoch), None)
            self.removed[record.node_id].append(epoch)
        for mark in record.marks:
            self._marks[mark.node_id, mark.epoch] = mark

    def rows(self) -> dict[str, dict[str, Column]]:
        """Return the new rows of each table that gets some, as columns."""
        found = {schema.table_of(group): each.arrays() for group, each in self._points.items()}
        if self._marks:
            marks = map(astuple, self._marks.values())
            found[schema.RECEIPTS] = columns_of(schema.RECEIPT_TYPES, marks)
        if self._losses:
            found[schema.LOSSES] = columns_of(schema.LOSS_TYPES, self._losses)
        return found
