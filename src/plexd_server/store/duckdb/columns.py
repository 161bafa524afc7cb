"""Points as columns of their group's table: numpy arrays, which DuckDB inserts fastest.

Row by row, through DuckDB's appender, a point costs two and a half times as much
(docs/adr/0006-embedded-store.md).
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from plexd_server.store.duckdb import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from plexd.api import MetricPoint
    from plexd_server.store.duckdb.changeset import ReportPoints

    Column = NDArray[Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NOT_A_TIME: Final = -(2**63)
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


def columns_by_group(reports: Iterable[ReportPoints]) -> dict[str, dict[str, Column]]:
    """Return the points of each group as columns; a group without points is left out.

    A group has every column of `schema.table_of`, in its order, all of one length.
    """
    groups: dict[str, list[ReportPoints]] = defaultdict(list)
    for report in reports:
        for group, points in _by_group(report.points).items():
            groups[group].append(report._replace(points=points))
    return {group: _columns(group, found) for group, found in groups.items()}


def columns_of(types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> dict[str, Column]:
    """Return the rows as columns of these names and types."""
    values = zip(*rows, strict=True)
    return dict(zip(types, map(_column, types.values(), values), strict=True))


def _by_group(points: Sequence[MetricPoint]) -> dict[str, list[MetricPoint]]:
    groups: dict[str, list[MetricPoint]] = defaultdict(list)
    for point in points:
        groups[point.group if point.group in schema.PAYLOADS else schema.OTHER].append(point)
    return groups


def _columns(group: str, reports: Sequence[ReportPoints]) -> dict[str, Column]:
    counts = [len(report.points) for report in reports]
    points = [point for report in reports for point in report.points]
    nodes = np.array([report.node_id for report in reports], dtype=object)
    return {
        "node_id": nodes.repeat(counts),
        "ts": _times(map(_timestamp, points)),
        "received_at": _times(report.received_at for report in reports).repeat(counts),
        **_data_columns(group, points),
    }


def _data_columns(group: str, points: Sequence[MetricPoint]) -> dict[str, Column]:
    if group == schema.OTHER:
        rows = [(point.group, point.peer_id, bytes(point.data).decode()) for point in points]  # type: ignore[arg-type]  # Raw
        return columns_of(schema.OTHER_TYPES, rows)
    types = {field: schema.column_type(field) for field in schema.data_fields(group)}
    return columns_of(types, map(msgspec.structs.astuple, map(_data, points)))


def _column(kind: str, values: Sequence[Any]) -> Column:
    if kind == "TIMESTAMP":
        return _times(values)
    return np.array(values, dtype=_NUMPY_TYPES[kind])


def _times(values: Iterable[datetime | None]) -> Column:
    """Return times exact to the microsecond in every year, as floats are not; None is NaT."""
    ticks = [_NOT_A_TIME if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    return np.array(ticks, dtype=np.int64).view("datetime64[us]")
