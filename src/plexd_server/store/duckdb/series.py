"""Fields over time: the SQL text that folds readings into buckets, and the values made of the rows.

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

from plexd_server.store.duckdb.schema import data_fields, has_peers, table_of
from plexd_server.store.port import Gap, Series, SeriesQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

_FIRST_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)  # a bucket may begin before it
# The reading before the range: a look at the minutes before costs nothing, one at a day does.
_NEARBY: Final = timedelta(minutes=5)
_LONG_AGO: Final = timedelta(days=1)
_MINUS_ONE_IS_NONE: Final = frozenset({"rtt_nano", "packet_loss_percent"})
_STEADY_MICROSECONDS: Final = 60_000_000  # the time to an arrival varies by about as much
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
    buckets = _read(cursor, query, _before(query.since, _NEARBY))
    if buckets and buckets[0].intervals < buckets[0].readings:
        last = _last_before(cursor, query)
        buckets = buckets if last is None else _read(cursor, query, last)
    folds: list[dict[str, list[float | None]]] = [{}, {}, {}]
    for column, field in enumerate(query.fields):
        for fold, values in enumerate(folds):
            values[field] = [bucket.values[len(folds) * column + fold] for bucket in buckets]
    times, (means, least, most) = [_utc(bucket.start) for bucket in buckets], folds
    return Series(times, means, least, most, _gaps(buckets, query.step))


def _read(cursor: duckdb.DuckDBPyConnection, query: SeriesQuery, since: datetime) -> list[_Bucket]:
    rows = cursor.execute(*series_query(query, since)).fetchall()
    spacing = len(_Bucket._fields) - 1
    return [_Bucket._make([*row[:spacing], row[spacing:]]) for row in rows]


def _last_before(cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> datetime | None:
    """Return when the last reading before the range was taken."""
    where, parameters = _where(query, _before(query.since, _LONG_AGO), query.since)
    statement = f"SELECT max(ts) FROM {table_of(query.group)} WHERE {where}"  # noqa: S608 -- our own names
    ((found,),) = cursor.execute(statement, parameters).fetchall()
    return None if found is None else _utc(found)


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


def series_query(query: SeriesQuery, since: datetime) -> tuple[str, list[Any]]:
    """Return the statement and its parameters; it reads from ``since`` on, before the range.

    Columns: those of `_Bucket`.
    """
    if not set(query.fields) <= set(data_fields(query.group)):
        raise ValueError(f"not all of {query.fields} are fields of {query.group}")
    step = query.step // timedelta(microseconds=1)
    where, parameters = _where(query, since, query.until)
    fields = [_rate(name) if name in query.rates else _gauge(name) for name in query.fields]
    statement = f"""
        WITH readings AS (
            SELECT ts, time_bucket(to_microseconds({step}), ts) AS bucket, lag(ts) OVER w AS before,
                epoch_us(ts) - epoch_us(received_at) AS ahead,
                epoch_us(before) - epoch_us(lag(received_at) OVER w) AS ahead_before,
                {_listed(field.read for field in fields)}
            FROM {table_of(query.group)} WHERE {where} WINDOW w AS (ORDER BY ts, received_at, rowid)
        ), intervals AS (
            SELECT ts, bucket, before, epoch_us(ts) - epoch_us(before) AS passed,
                passed > 0 AND (greatest(ahead, ahead_before) <= {_STEADY_MICROSECONDS}
                    OR abs(ahead - ahead_before) <= {_STEADY_MICROSECONDS}) AS is_steady,
                CASE WHEN before >= bucket OR (ts = bucket AND passed = {step}) THEN passed
                    ELSE epoch_us(ts) - epoch_us(bucket) END AS share,
                {_listed(field.known for field in fields)}
            FROM readings WHERE ts >= ?
        ), buckets AS (
            SELECT bucket, count(*) AS readings, count(before) AS intervals,
                sum(passed)::BIGINT AS total, max(passed) AS longest, arg_max(ts, passed) AS until,
                min(before) AS came_from, {_listed(field.folded for field in fields)}
            FROM intervals GROUP BY bucket
        ), joined AS (
            SELECT *, epoch_us(bucket) + {step} - epoch_us(lead(came_from) OVER w) AS rest,
                {_listed(field.joined for field in fields if field.joined)}
            FROM buckets WINDOW w AS (ORDER BY bucket)
        )
        SELECT greatest(bucket, TIMESTAMP '{_FIRST_TIME.date()}') AS start,
            readings, intervals, total, longest, until,
            {_listed(field.answered for field in fields)}
        FROM joined ORDER BY start"""  # noqa: S608 -- names checked above
    return statement, [*parameters, query.since.replace(tzinfo=None)]


class _Column(NamedTuple):
    """What each part of the statement says of one field."""

    read: str
    known: str
    folded: str
    joined: str
    answered: str


def _gauge(name: str) -> _Column:
    """Return the SQL of a mean; no value where the wire has -1 for "unknown" or "no answer"."""
    value = f"nullif({name}, -1)" if name in _MINUS_ONE_IS_NONE else name
    folds = ("avg", "min", "max")
    return _Column(
        read=f"{value}::DOUBLE AS {name}",
        known=name,
        folded=_listed(f"{fold}({name}) AS {name}_{fold}" for fold in folds),
        joined="",
        answered=_listed(f"{name}_{fold}" for fold in folds),
    )


def _rate(name: str) -> _Column:
    """Return the SQL of a counter's change per second.

    ``entering`` is the rate of the interval that began in an earlier bucket, and ``leaving`` of the
    one that ends in a later bucket, of which ``rest`` lies in this one.
    """
    entering = f"max({name} / passed) FILTER (before < bucket AND share < passed)"
    time = f"(coalesce({name}_time, 0) + if({name}_leaving IS NULL, 0, rest))"
    rise = f"(coalesce({name}_rise, 0) + coalesce({name}_leaving * rest, 0))"
    least, most = f"least({name}_min, {name}_leaving)", f"greatest({name}_max, {name}_leaving)"
    # Between them also after rounding.
    mean = f"greatest({least}, least({most}, {rise} / {time}))"
    answers = (f"if({time} > 0, {mean}, {name}_entering)", least, most)
    return _Column(
        read=f"{name}, lag({name}) OVER w AS {name}_before",
        known=f"CASE WHEN is_steady AND {name} >= {name}_before "
        f"THEN ({name}::HUGEINT - {name}_before::HUGEINT)::DOUBLE END AS {name}",
        folded=f"sum({name} * (share / passed)) AS {name}_rise, "
        f"sum(share) FILTER ({name} IS NOT NULL) AS {name}_time, "
        f"min({name} / passed) AS {name}_min, max({name} / passed) AS {name}_max, "
        f"{entering} AS {name}_entering",
        joined=f"lead({name}_entering) OVER w AS {name}_leaving",
        answered=_listed(f"1e6 * {answer}" for answer in answers),
    )


def _where(query: SeriesQuery, since: datetime, until: datetime) -> tuple[str, list[Any]]:
    """Return a condition and its parameters: the query's node and peer, in ``[since, until)``."""
    condition = "node_id = ? AND ts >= ? AND ts < ?"
    parameters = [query.node_id, since.replace(tzinfo=None), until.replace(tzinfo=None)]
    if has_peers(query.group):
        return f"{condition} AND peer_id = ?", [*parameters, query.peer_id]
    return condition, parameters


def _listed(parts: Iterator[str]) -> str:
    return ", ".join(parts)


def _before(moment: datetime, by: timedelta) -> datetime:
    return moment - min(by, moment - _FIRST_TIME)


def _utc(moment: datetime) -> datetime:
    """Return the time with its zone, which the database leaves out."""
    return moment.replace(tzinfo=UTC)
