"""Fields over time: the SQL text that folds runs into buckets, and the values made of the rows.

A run is a reading, or a rollup of some (`rollups`); which are read is chosen by the bucket's length.

An interval is the time from one reading to the next, by their stamps. In a bucket, the rate of a
counter is how much it rose there, divided by the time in which that is known: an interval that lies
in several buckets gives each its share. An interval from the start of a bucket to the start of the
next one counts where it ends, and so does one that ends at the start of a bucket without any other.

An interval has no rate if the counter was reset in it, and if the node's clock was set between its
readings: the stamp of one was ahead of its arrival, by much more or less than the other's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plexd_server.store.duckdb.columns import microseconds
from plexd_server.store.duckdb.queries import read_one
from plexd_server.store.duckdb.rolling import read_rolled
from plexd_server.store.duckdb.rollups import (
    AHEAD,
    COUNTER,
    FIVE,
    GAUGE,
    HOUR,
    MINUTE,
    NOT_ROLLED,
    RUN,
    Piece,
    are_rolled,
    as_gauge,
    choose,
    joined,
)
from plexd_server.store.duckdb.runs import STEADY_MICROSECONDS
from plexd_server.store.duckdb.schema import data_fields, has_peers, table_of
from plexd_server.store.port import Gap, Series, SeriesQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 -- the database has no zones
_FIRST_TIME: Final = microseconds(datetime(1, 1, 1, tzinfo=UTC))
_MICROSECOND: Final = timedelta(microseconds=1)
# The reading before the range: a look at the minutes before costs nothing, one at a day does.
_NEARBY: Final = 5 * MINUTE
_LONG_AGO: Final = 24 * HOUR.length
_NUMBER: Final = "SELECT series FROM series WHERE node_id = ? AND peer_id = ?"
_OF_A_READING: Final = (
    f"1 AS readings, ts AS first, ts AS last, {AHEAD} AS first_ahead, {AHEAD} AS last_ahead, "
    "0 AS longest, ts AS until"
)
_GAP_FACTOR: Final = 2.5
_NEIGHBOURS: Final = 10


class _Bucket(NamedTuple):
    """A row of the query; lengths of time are in microseconds.

    ``total`` is the sum of the ``intervals`` that end in it, and ``until`` is when the longest of
    them ended. ``values`` has avg, min and max of each field.
    """

    start: datetime
    readings: int
    intervals: int
    total: int
    longest: int
    until: datetime
    values: Sequence[float | None]

    @property
    def usual(self) -> float:
        """Return the mean interval, without the longest if there are others."""
        others = self.intervals - 1
        return (self.total - self.longest) / others if others else self.longest


def read_series(cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> Series:
    """Return the buckets of the query's fields, and the gaps between its readings."""
    if not set(query.fields) <= set(data_fields(query.group)):
        raise ValueError(f"not all of {query.fields} are fields of {query.group}")
    sources = _Sources(cursor, query)
    buckets = _read(cursor, query, sources, sources.since - _NEARBY)
    if buckets and buckets[0].intervals < buckets[0].readings:
        last = _last_before(cursor, sources)
        buckets = buckets if last is None else _read(cursor, query, sources, FIVE.floor(last))
    folds: list[dict[str, list[float | None]]] = [{}, {}, {}]
    for column, field in enumerate(query.fields):
        for fold, values in enumerate(folds):
            values[field] = [bucket.values[len(folds) * column + fold] for bucket in buckets]
    times, (means, least, most) = [_utc(bucket.start) for bucket in buckets], folds
    return Series(times, means, least, most, _gaps(buckets, query.step))


class _Sources:
    """The readings and rollups of a query, as runs that follow each other."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> None:
        self._query = query
        self.since, self._until = map(microseconds, (query.since, query.until))
        self._step = query.step // _MICROSECOND
        is_rolled = are_rolled(query.group, query.fields, query.rates)
        self._rolled = read_rolled(cursor, query.node_id) if is_rolled else NOT_ROLLED
        number = read_one(cursor, _NUMBER, query.node_id, query.peer_id)
        self._series = -1 if number is None else number

    def runs(self, since: int, *, upto_since: bool = False) -> tuple[str, list[Any]]:
        """Return a query for the runs from ``since`` on, before the range, and its parameters."""
        pieces = self._choose(max(since, _FIRST_TIME), self.since)
        if not upto_since:
            pieces += self._choose(self.since, self._until)
        texts, parameters = zip(*map(self._source, joined(pieces)), strict=True)
        return " UNION ALL ".join(texts), [value for values in parameters for value in values]

    def _choose(self, since: int, until: int) -> list[Piece]:
        return choose(since, until, self._step, self._rolled)

    def _source(self, piece: Piece) -> tuple[str, list[Any]]:
        if piece.level is None:
            return self._of_readings(piece)
        columns = _listed(f'"{name}"' for name in (*RUN, *self._columns()))
        statement = f"""SELECT {columns}, 0 AS place FROM {piece.level.table(self._query.group)}
            WHERE series = ? AND start >= ? AND start < ?"""  # noqa: S608 -- our own names
        return statement, [self._series, *_times(piece)]

    def _columns(self) -> Iterator[str]:
        for name in self._query.fields:
            yield from (f"{name}_{of}" for of in (COUNTER if name in self._query.rates else GAUGE))

    def _of_readings(self, piece: Piece) -> tuple[str, list[Any]]:
        query = self._query
        fields = (
            _one_rate(name) if name in query.rates else _one_gauge(name) for name in query.fields
        )
        where, peer = ("AND peer_id = ?", [query.peer_id]) if has_peers(query.group) else ("", [])
        statement = f"""SELECT {_OF_A_READING}, {_listed(fields)}, rowid AS place
            FROM {table_of(query.group)} WHERE node_id = ? AND ts >= ? AND ts < ? {where}"""  # noqa: S608 -- names checked before
        return statement, [query.node_id, *_times(piece), *peer]


def _read(
    cursor: duckdb.DuckDBPyConnection, query: SeriesQuery, sources: _Sources, since: int
) -> list[_Bucket]:
    runs, parameters = sources.runs(since)
    statement = _fold(query, runs)
    rows = cursor.execute(statement, [*parameters, query.since.replace(tzinfo=None)]).fetchall()
    spacing = len(_Bucket._fields) - 1
    return [_Bucket._make([*row[:spacing], row[spacing:]]) for row in rows]


def _last_before(cursor: duckdb.DuckDBPyConnection, sources: _Sources) -> int | None:
    """Return when the last reading before the range was taken."""
    runs, parameters = sources.runs(sources.since - _LONG_AGO, upto_since=True)
    found: int | None = read_one(cursor, f"SELECT epoch_us(max(last)) FROM ({runs})", *parameters)  # noqa: S608 -- our own names
    return found


def _gaps(buckets: Sequence[_Bucket], step: timedelta) -> list[Gap]:
    """Return the intervals longer than a bucket and than what is usual in the buckets around."""
    timed = [bucket for bucket in buckets if bucket.intervals]
    least = step / timedelta(microseconds=1)
    return [
        _gap(bucket)
        for place, bucket in enumerate(timed)
        if bucket.longest > max(least, _GAP_FACTOR * _usual_around(timed, place))
    ]


def _usual_around(buckets: Sequence[_Bucket], place: int) -> float:
    around = buckets[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
    return median(bucket.usual for bucket in around)


def _gap(bucket: _Bucket) -> Gap:
    until = _utc(bucket.until)
    return Gap(until - timedelta(microseconds=bucket.longest), until)


def _fold(query: SeriesQuery, runs: str) -> str:
    """Return the statement that folds runs into buckets; its last parameter is the range's begin.

    Columns: those of `_Bucket`.
    """
    step = query.step // _MICROSECOND
    fields = [_rate(name) if name in query.rates else _gauge(name) for name in query.fields]
    return f"""
        WITH runs AS ({runs}), edges AS (
            SELECT *, time_bucket(to_microseconds({step}), first) AS bucket, lag(last) OVER w AS before,
                lag(last_ahead) OVER w AS ahead_before,
                {_listed(field.edge for field in fields if field.edge)}
            FROM runs WINDOW w AS (ORDER BY first, place)
        ), intervals AS (
            SELECT *, epoch_us(first) - epoch_us(before) AS passed,
                passed > 0 AND (greatest(first_ahead, ahead_before) <= {STEADY_MICROSECONDS}
                    OR abs(first_ahead - ahead_before) <= {STEADY_MICROSECONDS}) AS is_steady,
                CASE WHEN before >= bucket OR (first = bucket AND passed = {step}) THEN passed
                    ELSE epoch_us(first) - epoch_us(bucket) END AS share,
                greatest(longest, passed) AS most, if(passed >= longest, first, until) AS ended,
                {_listed(field.known for field in fields if field.known)}
            FROM edges WHERE first >= ?
        ), buckets AS (
            SELECT bucket, sum(readings)::BIGINT AS readings,
                (sum(readings) - count(*) + count(before))::BIGINT AS intervals,
                (coalesce(sum(passed), 0) + sum(epoch_us(last) - epoch_us(first)))::BIGINT AS total,
                max(most) AS longest, arg_max(ended, most) AS until,
                min(before) AS came_from, {_listed(field.folded for field in fields)}
            FROM intervals GROUP BY bucket
        ), joined AS (
            SELECT *, greatest(0, epoch_us(bucket) + {step} - epoch_us(lead(came_from) OVER w)) AS rest,
                {_listed(field.joined for field in fields if field.joined)}
            FROM buckets WINDOW w AS (ORDER BY bucket)
        )
        SELECT bucket, readings, intervals, total, longest, until,
            {_listed(field.answered for field in fields)}
        FROM joined ORDER BY bucket"""  # noqa: S608 -- names checked before


class _Column(NamedTuple):
    """What each part of the statement says of one field."""

    folded: str
    answered: str
    edge: str = ""
    known: str = ""
    joined: str = ""


def _one_gauge(name: str) -> str:
    """Return the SQL of one reading as a run."""
    value = as_gauge(name)
    return (
        f"coalesce({value}, 0) AS {name}_sum, ({value} IS NOT NULL)::INTEGER AS {name}_count, "
        f"{value} AS {name}_min, {value} AS {name}_max"
    )


def _one_rate(name: str) -> str:
    nothing = f"0::DOUBLE AS {name}_rise, 0 AS {name}_time"
    none = f"NULL::DOUBLE AS {name}_min, NULL::DOUBLE AS {name}_max"
    return f"{name} AS {name}_first, {name} AS {name}_last, {nothing}, {none}"


def _gauge(name: str) -> _Column:
    """Return the SQL of a mean."""
    mean = f"{name}_total / nullif({name}_values, 0)"
    return _Column(
        folded=f"sum({name}_sum) AS {name}_total, sum({name}_count) AS {name}_values, "
        f"min({name}_min) AS {name}_least, max({name}_max) AS {name}_most",
        answered=f"{mean}, {name}_least, {name}_most",
    )


def _rate(name: str) -> _Column:
    """Return the SQL of a counter's change per second.

    ``entering`` is the rate of the interval that began in an earlier bucket, and ``leaving`` of the
    one that ends in a later bucket, of which ``rest`` lies in this one.
    """
    entering = f"max({name} / passed) FILTER (before < bucket AND share < passed)"
    time = f"(known_{name} + if({name}_leaving IS NULL, 0, rest))"
    rise = f"(risen_{name} + coalesce({name}_leaving * rest, 0))"
    least, most = f"least({name}_least, {name}_leaving)", f"greatest({name}_most, {name}_leaving)"
    # Between them also after rounding.
    mean = f"greatest({least}, least({most}, {rise} / {time}))"
    answers = (f"if({time} > 0, {mean}, {name}_entering)", least, most)
    return _Column(
        edge=f"lag({name}_last) OVER w AS {name}_before",
        known=f"CASE WHEN is_steady AND {name}_first >= {name}_before "
        f"THEN ({name}_first::HUGEINT - {name}_before::HUGEINT)::DOUBLE END AS {name}",
        folded=f"coalesce(sum({name} * (share / passed)), 0) + sum({name}_rise) AS risen_{name}, "
        f"coalesce(sum(share) FILTER ({name} IS NOT NULL), 0) + sum({name}_time) AS known_{name}, "
        f"min(least({name} / passed, {name}_min)) AS {name}_least, "
        f"max(greatest({name} / passed, {name}_max)) AS {name}_most, "
        f"{entering} AS {name}_entering",
        joined=f"lead({name}_entering) OVER w AS {name}_leaving",
        answered=_listed(f"1e6 * {answer}" for answer in answers),
    )


def _times(piece: Piece) -> list[datetime]:
    return [_EPOCH + timedelta(microseconds=moment) for moment in (piece.since, piece.until)]


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _utc(moment: datetime) -> datetime:
    """Return the time with its zone, which the database leaves out."""
    return moment.replace(tzinfo=UTC)
