"""Two databases with the same points, of which one has rollups; and whether a series agrees."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from math import isclose
from typing import TYPE_CHECKING, Final

from plexd.clock import SystemClock
from plexd_server.fault_log import FaultLog
from plexd_server.store import COUNTERS, Report, Series, SeriesQuery
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.duckdb.series import read_series
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.embedded.mark_cache import KnownMarks, MarkCache
from plexd_server.store.embedded.staging import StagedReports
from support.points import NOW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from plexd.api import MetricPoint
    from plexd_server.store.marks import Mark

__all__ = ["FIELDS", "Pair", "asked", "assert_same"]

FIELDS: Final = {
    "tunnel": ("rx_bytes", "tx_bytes", "packet_loss_percent"),
    "latency": ("rtt_nano",),
}


class _NothingStored:
    """No marks beside those in memory."""

    def find(self, node_id: str, epoch: str) -> None:
        del node_id, epoch

    def of_node(self, node_id: str) -> list[Mark]:
        del node_id
        return []


class Pair:
    """Two databases with the same points: ``rolled`` has rollups when told so, ``plain`` none."""

    def __init__(self, directory: Path) -> None:
        log = FaultLog("test", SystemClock())
        self.rolled, self.plain = (
            Tables(directory / f"{name}.duckdb", "128MB", reading=log) for name in ("a", "b")
        )
        self._marks = MarkCache(KnownMarks(), _NothingStored())
        self._numbers = count(1)

    def close(self) -> None:
        for tables in (self.rolled, self.plain):
            tables.close()

    def write(self, points: Sequence[tuple[datetime, MetricPoint]], node: str = "n") -> None:
        """Load points of a node as one chunk, each with the time of its arrival."""
        if not points:
            return
        number, staged = next(self._numbers), StagedReports(self._marks)
        chunk = Chunk(number - 1)
        for arrived, point in points:
            chunk.add(number, staged.add(Report(node, (point,), arrived))[1])
        staged.apply(number)
        for tables in (self.rolled, self.plain):
            tables.load(chunk)

    def roll(self) -> None:
        """Make all rollups that there are to make, and then again those that are stale."""
        for before in (None, NOW - timedelta(days=1000)):
            while self.rolled.roll(before):
                pass

    def expire(self, before: datetime) -> None:
        """Remove the older points of the database with rollups."""
        while self.rolled.roll(before):
            pass
        while self.rolled.expire(before):
            pass


def asked(
    tables: Tables, group: str, since: datetime, until: datetime, step: int, node: str = "n"
) -> Series:
    """Return the series of all fields of a group."""
    fields = FIELDS[group]
    query = SeriesQuery(
        node, group, fields, COUNTERS & {*fields}, since, until, timedelta(seconds=step), "p"
    )
    return tables.read(lambda cursor: read_series(cursor, query))


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-9)


def assert_same(ours: Series, theirs: Series) -> None:
    """Assert that both are the same but for the rounding of floats."""
    assert ours.times == theirs.times
    for fold in ("avg", "min", "max"):
        for field, values in getattr(theirs, fold).items():
            pairs = zip(getattr(ours, fold)[field], values, strict=True)
            assert all(_is_close(one, other) for one, other in pairs), (fold, field)
    assert [gap.until - gap.since for gap in ours.gaps] == [
        gap.until - gap.since for gap in theirs.gaps
    ]
