"""Points as columns of their group's table: numpy arrays, which DuckDB inserts fastest.

Row by row, through DuckDB's appender, a point costs two and a half times as much
(docs/adr/0006-embedded-store.md).
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from plexd_server.store.duckdb import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence

    from numpy.typing import NDArray

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
_TYPE_CODES: Final = {
    "TIMESTAMP": "q",
    "BOOLEAN": "b",
    "DOUBLE": "d",
    "BIGINT": "q",
    "UBIGINT": "Q",
    "UINTEGER": "I",
}
_TIMES_KEPT: Final = 65_536
_timestamp = attrgetter("timestamp")
_data = attrgetter("data")


class GroupColumns:
    """The rows of one group's table, column by column, as they come."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types
        self._nodes: list[str] = []
        self._received: list[int] = []
        self._counts: list[int] = []
        self._times = array("q")
        self._columns = {name: _growing(kind) for name, kind in types.items()}
        self._readers = {name: _reader(name, kind) for name, kind in types.items()}

    def add(self, node_id: str, received_at: datetime, points: Sequence[Any]) -> None:
        """Add a row for each point: its ``timestamp``, and of its ``data`` the fields."""
        payloads = [*map(_data, points)]
        self._times.extend(map(microseconds, map(_timestamp, points)))
        for name, column in self._columns.items():
            column.extend(self._readers[name](payloads))
        self._nodes.append(node_id)
        self._received.append(microseconds(received_at))
        self._counts.append(len(points))

    def arrays(self) -> dict[str, Column]:
        """Return every column of the table, in its order, all of one length."""
        nodes = np.array(self._nodes, dtype=object)
        return {
            "node_id": nodes.repeat(self._counts),
            "ts": _as_times(np.frombuffer(self._times, dtype=np.int64)),
            "received_at": _as_times(np.array(self._received, dtype=np.int64)).repeat(self._counts),
            **{name: _array(column, self._types[name]) for name, column in self._columns.items()},
        }


def columns_of(types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> dict[str, Column]:
    """Return the rows as columns of these names and types."""
    values = zip(*rows, strict=True)
    return dict(zip(types, map(_column, types.values(), values), strict=True))


@lru_cache(_TIMES_KEPT)
def microseconds(moment: datetime | str) -> int:
    """Return a time in microseconds since 1970; a text is one that was checked as it came."""
    if isinstance(moment, str):
        moment = msgspec.convert(moment, datetime).astimezone(UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _growing(kind: str) -> MutableSequence[Any]:
    return [] if kind == "VARCHAR" else array(_TYPE_CODES[kind])


def _reader(name: str, kind: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return what reads a field of many payloads."""
    read = attrgetter(name)
    if kind == "TIMESTAMP":
        return lambda payloads: map(microseconds, map(read, payloads))
    return lambda payloads: map(read, payloads)


def _array(column: MutableSequence[Any], kind: str) -> Column:
    if kind == "TIMESTAMP":
        return _as_times(np.frombuffer(column, dtype=np.int64))  # type: ignore[call-overload]  # an array
    if kind == "VARCHAR":
        return np.array(column, dtype=object)
    return np.frombuffer(column, dtype=_NUMPY_TYPES[kind])  # type: ignore[call-overload, no-any-return]  # an array


def _column(kind: str, values: Sequence[Any]) -> Column:
    if kind == "TIMESTAMP":
        ticks = [_NOT_A_TIME if value is None else microseconds(value) for value in values]
        return _as_times(np.array(ticks, dtype=np.int64))
    return np.array(values, dtype=_NUMPY_TYPES[kind])


def _as_times(ticks: NDArray[np.int64]) -> Column:
    """Return times exact to the microsecond in every year, as floats are not."""
    return ticks.view("datetime64[us]")


def point_columns(group: str) -> GroupColumns:
    """Return empty columns of a group's table."""
    return GroupColumns({field: schema.column_type(field) for field in schema.data_fields(group)})
