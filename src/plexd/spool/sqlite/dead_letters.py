"""What the control plane will never accept, kept for the operator to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.api import BatchName, MetricBatch, decode_batch
from plexd.spool.port import Refusal
from plexd.spool.sqlite.rows import Row

if TYPE_CHECKING:
    from plexd.spool.sqlite.tables import SpoolTables

_MOST_LETTERS, _MOST_BYTES = 64, 1024 * 1024


class DeadLetters:
    """The newest 64 refused batches in ``tables``, up to 1 MiB."""

    def __init__(self, tables: SpoolTables) -> None:
        self._tables = tables

    def add(self, refusal: Refusal) -> None:
        """Keep a batch that has a name, within a transaction."""
        name = refusal.batch.name
        if name is not None:
            row = Row(0, name.epoch, name.last, 0, 0, name.points, refusal.batch.to_json())
            self._tables.add_dead_letter(row, refusal.reason, _MOST_LETTERS, _MOST_BYTES)

    def read(self) -> list[Refusal]:
        """Return them, oldest first."""
        return [_refusal(row, reason) for row, reason in self._tables.dead_letters()]


def _refusal(row: Row, reason: str) -> Refusal:
    name = BatchName(row.epoch, row.first, row.points)
    return Refusal(MetricBatch(decode_batch(row.body), name=name), reason)
