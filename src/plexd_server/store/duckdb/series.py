"""Fields over time, read from readings and from rollups.

Both are runs (`rollups`), which are read piece by piece in order of time and folded into the
series' buckets (`buckets`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from plexd_server.store.duckdb.buckets import Buckets
from plexd_server.store.duckdb.columns import microseconds
from plexd_server.store.duckdb.queries import read_one
from plexd_server.store.duckdb.rolling import read_rolled
from plexd_server.store.duckdb.rollups import (
    FIVE,
    HOUR,
    MINUTE,
    NOT_ROLLED,
    Fields,
    Piece,
    choose,
    joined,
    reading_columns,
    rolled_fields,
    rollup_columns,
)
from plexd_server.store.duckdb.runs import of_readings
from plexd_server.store.duckdb.schema import data_fields, has_peers, table_of
from plexd_server.store.port import Gap, Series, SeriesQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from plexd_server.store.duckdb.runs import Array, Columns

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_TIME: Final = microseconds(datetime(1, 1, 1, tzinfo=UTC))  # a bucket may begin before it
_MICROSECOND: Final = timedelta(microseconds=1)
# The reading before the range: a look at the minutes before costs nothing, one at a day does.
_NEARBY: Final = 5 * MINUTE
_LONG_AGO: Final = 24 * HOUR.length
_NUMBER: Final = "SELECT series FROM series WHERE node_id = ? AND peer_id = ?"
_GAP_FACTOR: Final = 2.5
_NEIGHBOURS: Final = 10


def read_series(cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> Series:
    """Return the buckets of the query's fields, and the gaps between its readings."""
    if not set(query.fields) <= set(data_fields(query.group)):
        raise ValueError(f"not all of {query.fields} are fields of {query.group}")
    source = _SeriesSource(cursor, query)
    runs = source.runs(source.since - _NEARBY, source.until)
    first = int(np.searchsorted(runs["first"], source.since))
    if first == len(runs["first"]):
        nothing: dict[str, list[float | None]] = {name: [] for name in query.fields}
        return Series([], nothing, nothing, nothing)
    if first == 0 and (last := source.last_before()) is not None:
        runs = source.runs(FIVE.floor(last), source.until)
    buckets = Buckets(runs, source.step, source.since)
    folds = [
        [*map(_answered, buckets.rate(name) if name in query.rates else buckets.gauge(name))]
        for name in query.fields
    ]
    means, least, most = (
        dict(zip(query.fields, fold, strict=True)) for fold in zip(*folds, strict=True)
    )
    times = [*map(_time, np.maximum(buckets.start, _FIRST_TIME).tolist())]
    return Series(times, means, least, most, _gaps(buckets, source.step))


class _SeriesSource:
    """The readings and rollups of a query, as runs; times are microseconds."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> None:
        self._cursor = cursor
        self._query = query
        self._fields = Fields(
            tuple(name for name in query.fields if name not in query.rates),
            tuple(name for name in query.fields if name in query.rates),
        )
        self.since, self.until = map(microseconds, (query.since, query.until))
        self.step = query.step // _MICROSECOND
        is_rolled = self._fields.are_in(rolled_fields(query.group))
        self._rolled = read_rolled(cursor, query.node_id) if is_rolled else NOT_ROLLED
        self._series = read_one(cursor, _NUMBER, query.node_id, query.peer_id)

    def runs(self, since: int, until: int) -> Columns:
        """Return the runs of a time in order; none lies on both sides of the range's begin."""
        begin = max(since, _FIRST_TIME)
        edges = ((begin, min(self.since, until)), (max(begin, self.since), until))
        pieces = joined(chain.from_iterable(map(self._choose, edges)))
        parts = [*map(self._read, pieces or [Piece(None, begin, begin)])]
        names = self._fields.columns()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def last_before(self) -> int | None:
        """Return when the last reading before the range was taken."""
        last = self.runs(self.since - _LONG_AGO, self.since)["last"]
        return int(last[-1]) if len(last) else None

    def _choose(self, edges: tuple[int, int]) -> list[Piece]:
        return choose(*edges, self.step, self._rolled)

    def _read(self, piece: Piece) -> Columns:
        if piece.level is None:
            return self._read_readings(piece)
        table = piece.level.table(self._query.group)
        statement = f"""SELECT {rollup_columns(self._fields)} FROM {table}
            WHERE series = ? AND start >= ? AND start < ? ORDER BY {table}.start"""  # noqa: S608 -- our own names
        return self._fetch(statement, self._series, *_times(piece))

    def _read_readings(self, piece: Piece) -> Columns:
        query = self._query
        where, peer = ("AND peer_id = ?", [query.peer_id]) if has_peers(query.group) else ("", [])
        statement = f"""SELECT 0 AS series, rowid AS place, {reading_columns(self._fields)}
            FROM {table_of(query.group)} WHERE node_id = ? AND ts >= ? AND ts < ? {where}"""  # noqa: S608 -- names checked before
        return of_readings(
            self._fields, self._fetch(statement, query.node_id, *_times(piece), *peer)
        )

    def _fetch(self, statement: str, *parameters: Any) -> Columns:
        found: Columns = self._cursor.execute(statement, parameters).fetchnumpy()
        return found


class _Timed(NamedTuple):
    """What a bucket says of the times between its readings, in microseconds."""

    intervals: int
    total: int
    longest: int
    until: int

    @property
    def usual(self) -> float:
        """Return the mean interval, without the longest if there are others."""
        others = self.intervals - 1
        return (self.total - self.longest) / others if others else self.longest


def _gaps(buckets: Buckets, step: int) -> list[Gap]:
    """Return the intervals longer than a bucket and than what is usual in the buckets around."""
    columns = (buckets.intervals, buckets.total, buckets.longest, buckets.until)
    rows = map(_Timed, *(column.tolist() for column in columns))
    timed = [row for row in rows if row.intervals]
    return [
        Gap(_time(row.until - row.longest), _time(row.until))
        for place, row in enumerate(timed)
        if row.longest > step and row.longest > _GAP_FACTOR * _usual_around(timed, place)
    ]


def _usual_around(rows: Sequence[_Timed], place: int) -> float:
    around = rows[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
    return median(row.usual for row in around)


def _answered(values: Array) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124 -- NaN


def _times(piece: Piece) -> list[datetime]:
    return [_time(moment).replace(tzinfo=None) for moment in (piece.since, piece.until)]


def _time(moment: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment)
