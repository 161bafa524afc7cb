"""Points as columns of their group's table, in the form in which DuckDB takes them up fastest.

Row by row, through its appender, a point costs two and a half times as much
(docs/adr/0006-embedded-store.md).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from plexd_server.store.duckdb import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from plexd.api import MetricPoint

    Column = NDArray[Any]

__all__ = ["ReportPoints", "columns_by_group", "columns_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_TIME: Final = -(2**63)
_NUMPY_TYPES: Final = {
    "VARCHAR": object,
    "BOOLEAN": np.bool_,
    "DOUBLE": np.float64,
    "BIGINT": np.int64,
    "UBIGINT": np.uint64,
    "UINTEGER": np.uint32,
}

_timestamp = attrgetter("timestamp")
_data = attrgetter("data")


class ReportPoints(NamedTuple):
    """Points of a node that are to be stored."""

    node_id: str
    received_at: datetime
    points: Sequence[MetricPoint]


def columns_by_group(
    arrivals: Iterable[ReportPoints],
) -> dict[str, dict[str, Column]]:
    """By group the points that arrived; no groups without points.

    Of each group every column of `schema.table_of`, in its order, all of one length.
    """
    pieces: dict[str, list[ReportPoints]] = {}
    for arrival in arrivals:
        for group, members in _by_group(arrival.points).items():
            pieces.setdefault(group, []).append(arrival._replace(points=members))
    return {group: _columns(group, found) for group, found in pieces.items()}


def columns_of(types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> dict[str, Column]:
    """Rows as columns of these names and types."""
    values = zip(*rows, strict=True)
    return dict(zip(types, map(_column, types.values(), values), strict=True))


def _by_group(points: Sequence[MetricPoint]) -> dict[str, list[MetricPoint]]:
    groups: dict[str, list[MetricPoint]] = {}
    for point in points:
        members = groups.get(point.group)
        if members is None:
            members = groups[point.group] = []
        members.append(point)
    return groups


def _columns(group: str, pieces: Sequence[ReportPoints]) -> dict[str, Column]:
    counts = [len(piece.points) for piece in pieces]
    points = [point for piece in pieces for point in piece.points]
    types = {field: schema.column_type(field) for field in schema.data_fields(group)}
    nodes = np.array([piece.node_id for piece in pieces], dtype=object)
    return {
        "node_id": nodes.repeat(counts),
        "ts": _moments(map(_timestamp, points)),
        "received_at": _moments(piece.received_at for piece in pieces).repeat(counts),
        **columns_of(types, map(msgspec.structs.astuple, map(_data, points))),
    }


def _column(kind: str, values: Sequence[Any]) -> Column:
    if kind == "TIMESTAMP":
        return _moments(values)
    return np.array(values, dtype=_NUMPY_TYPES[kind])


def _moments(values: Iterable[datetime | None]) -> Column:
    """Exact to the microsecond in every year, which floats are not; None is no time."""
    ticks = [_NO_TIME if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    return np.array(ticks, dtype=np.int64).view("datetime64[us]")
