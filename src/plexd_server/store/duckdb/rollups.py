"""Rollups: readings of five minutes, and of an hour, summed up in one row for each peer.

A *run* is what a number of readings in a row amount to: the first and the last one, and what
happened in between. It has all that a series needs of the readings, so runs that follow each other
make a longer run, and a series of runs is the series of their readings. A reading is a run of one.

    series(series, node_id, peer_id)     a number for each pair; peer_id is empty without peers
    rollups_5m_<group>(series, start, <the columns of a run>)        of readings at [start, + 5 min)
    rollups_1h_<group>(series, start, <the columns of a run>)        of an hour
    stale(node_id, start)                five minutes in which a reading came after their rollup

    readings                 how many
    first, last              the stamps of the first and the last
    first_ahead, last_ahead  the microseconds by which those were ahead of their arrival, or 0
    longest, until           the longest time between two of them (microseconds), and when it ended
    of a gauge:   F_sum, F_count, F_min, F_max
    of a counter: F_first, F_last, and of the intervals between the readings that have a rate:
                  F_rise, F_time (microseconds), F_min, F_max (per microsecond)

    meta.rolled              up to this time all readings are in rollups, but those of stale rows
    meta.gone                readings before this time may have been removed
    meta.ordered_5m, _1h     up to this time rollups are in order of series, but for later ones

All times are microseconds since 1970. A run depends on the readings in its time alone, not on
those before it: what lies between two runs is found when a series is read.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd_server.store.duckdb.schema import column_type, data_fields
from plexd_server.store.payloads import PAYLOADS
from plexd_server.store.port import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

    from plexd_server.store.duckdb.runs import Columns


class Level(NamedTuple):
    """The rollups of one length.

    Attributes:
        name: in the names of its tables.
        length: microseconds.
    """

    name: str
    length: int

    def table(self, group: str) -> str:
        """Return the table of a group's rollups."""
        return f"rollups_{self.name}_{group}"

    def floor(self, moment: int) -> int:
        """Return the start of the bucket in which the moment lies."""
        return moment - moment % self.length

    def ceil(self, moment: int) -> int:
        """Return the first start of a bucket at the moment or later."""
        return -self.floor(-moment)


MINUTE: Final = 60_000_000
FIVE: Final = Level("5m", 5 * MINUTE)
HOUR: Final = Level("1h", 60 * MINUTE)
LEVELS: Final = (FIVE, HOUR)
ROLLED, GONE, ORDERED = "rolled", "gone", "ordered_{}"
NEW_ROWS: Final = "new_rows"
NEVER: Final = -(2**62)
_MOST_HOLES: Final = 20
# The microseconds by which a reading's stamp is ahead of its arrival, or 0. Behind is as good as
# right: clocks are compared only if one of two readings is ahead by more than a minute.
_AHEAD: Final = "greatest(epoch_us(ts) - epoch_us(received_at), 0)"
_READ: Final = {"TIMESTAMP": 'epoch_us("{}")', "DOUBLE": """coalesce("{}", 'nan')"""}
_STORED: Final = {"TIMESTAMP": 'make_timestamp("{}")', "DOUBLE": 'if(isnan("{0}"), NULL, "{0}")'}
_NO_NUMBERS: Final = frozenset({"VARCHAR", "BOOLEAN", "TIMESTAMP"})
_MINUS_ONE_IS_NONE: Final = frozenset({"rtt_nano", "packet_loss_percent"})

_RUN: Final = {
    "readings": "UINTEGER",
    "first": "TIMESTAMP",
    "last": "TIMESTAMP",
    "first_ahead": "BIGINT",
    "last_ahead": "BIGINT",
    "longest": "BIGINT",
    "until": "TIMESTAMP",
}
_GAUGE: Final = {"sum": "DOUBLE", "count": "UINTEGER", "min": "DOUBLE", "max": "DOUBLE"}
_COUNTER: Final = {
    "first": "UBIGINT",
    "last": "UBIGINT",
    "rise": "DOUBLE",
    "time": "BIGINT",
    "min": "DOUBLE",
    "max": "DOUBLE",
}


class Fields(NamedTuple):
    """Some fields of a group: the gauges, and the counters."""

    gauges: tuple[str, ...]
    counters: tuple[str, ...]

    def are_in(self, others: Fields) -> bool:
        """Return whether the others have these."""
        return {*self.gauges} <= {*others.gauges} and {*self.counters} <= {*others.counters}

    def columns(self) -> dict[str, str]:
        """Return the columns of a run of them, with their types."""
        return {
            **_RUN,
            **{f"{name}_{of}": kind for name in self.gauges for of, kind in _GAUGE.items()},
            **{f"{name}_{of}": kind for name in self.counters for of, kind in _COUNTER.items()},
        }


def rolled_fields(group: str) -> Fields:
    """Return the fields of a group that are in its rollups."""
    numbers = [name for name in data_fields(group) if column_type(name) not in _NO_NUMBERS]
    return Fields(
        tuple(name for name in numbers if name not in COUNTERS),
        tuple(name for name in numbers if name in COUNTERS),
    )


def reading_columns(fields: Fields) -> str:
    """Return the SQL of what `runs.of_readings` gets; NaN where the wire has -1 for "unknown"."""
    values = (
        f"coalesce(nullif({name}, -1)::DOUBLE, 'nan')"
        if name in _MINUS_ONE_IS_NONE
        else f"{name}::DOUBLE"
        for name in fields.gauges
    )
    gauges = [f"{value} AS {name}" for value, name in zip(values, fields.gauges, strict=True)]
    return ", ".join([f"epoch_us(ts) AS first, {_AHEAD} AS first_ahead", *gauges, *fields.counters])


def rollup_columns(fields: Fields) -> str:
    """Return the SQL of a rollup as a run."""
    read = ((name, _READ.get(kind, '"{}"')) for name, kind in fields.columns().items())
    return ", ".join(f'{value.format(name)} AS "{name}"' for name, value in read)


def stored_columns(fields: Fields) -> str:
    """Return the SQL of a run as a rollup."""
    stored = ((name, _STORED.get(kind, '"{}"')) for name, kind in fields.columns().items())
    return ", ".join(value.format(name) for name, value in stored)


def create_statements() -> Iterable[str]:
    """Yield what a database without rollups needs."""
    yield "CREATE TABLE series(series UINTEGER, node_id VARCHAR, peer_id VARCHAR)"
    yield "CREATE TABLE stale(node_id VARCHAR, start TIMESTAMP)"
    ordered = [ORDERED.format(level.name) for level in LEVELS]
    for key in (ROLLED, GONE, *ordered):
        yield f"INSERT INTO meta VALUES ('{key}', '{NEVER}')"  # noqa: S608 -- our own names
    for level in LEVELS:
        for group in PAYLOADS:
            run = rolled_fields(group).columns()
            columns = [f'"{name}" {kind}' for name, kind in run.items()]
            keys = "series UINTEGER, start TIMESTAMP"
            yield f"CREATE TABLE {level.table(group)}({keys}, {', '.join(columns)})"


def insert_runs(cursor: duckdb.DuckDBPyConnection, level: Level, group: str, runs: Columns) -> None:
    """Insert runs as rollups; ``start`` is in microseconds."""
    if not len(runs["series"]):
        return
    fields = rolled_fields(group)
    with registered(cursor, {name: runs[name] for name in ("series", "start", *fields.columns())}):
        run = f"series, make_timestamp(start), {stored_columns(fields)}"
        cursor.execute(f"INSERT INTO {level.table(group)} SELECT {run} FROM {NEW_ROWS}")  # noqa: S608 -- our own names


@contextmanager
def registered(cursor: duckdb.DuckDBPyConnection, columns: Columns) -> Iterator[None]:
    """Let the body's statements read the columns as `NEW_ROWS`."""
    cursor.register(NEW_ROWS, columns)
    try:
        yield
    finally:
        cursor.unregister(NEW_ROWS)


class Piece(NamedTuple):
    """A range of time, and the level whose rollups are read there; None: the readings."""

    level: Level | None
    since: int
    until: int


class Rolled(NamedTuple):
    """What of a node is in rollups.

    Attributes:
        upto: everything before is, but for the ``holes``.
        gone: readings before may have been removed.
        holes: starts of five minutes whose rollup is out of date, in order.
    """

    upto: int
    gone: int
    holes: Sequence[int] = ()


NOT_ROLLED: Final = Rolled(NEVER, NEVER)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces with readings that follow each other as one."""
    found: list[Piece] = []
    for piece in pieces:
        if found and piece.level is None and found[-1][::2] == (None, piece.since):
            found[-1] = found[-1]._replace(until=piece.until)
        else:
            found.append(piece)
    return found


def choose(since: int, until: int, step: int, rolled: Rolled) -> list[Piece]:
    """Choose what a series with buckets of ``step`` is read from, in order of time.

    Rollups are chosen if buckets are made of whole ones, the longest first; and where the readings
    are gone, whatever the step.
    """
    levels = [level for level in LEVELS if step % level.length == 0]
    if levels:
        return [*_cover(since, until, levels, rolled)]
    kept = min(max(since, FIVE.ceil(rolled.gone)), until)
    return [*_cover(since, kept, [FIVE], rolled), *_cover(kept, until, [], rolled)]


def _cover(since: int, until: int, levels: Sequence[Level], rolled: Rolled) -> Iterator[Piece]:
    """Yield the pieces of a range: whole rollups of the longest level, shorter ones around them."""
    if since >= until:
        return
    if not levels:
        yield Piece(None, since, until)
        return
    *shorter, longest = levels
    at = since
    for piece in _whole(since, until, longest, rolled):
        yield from _cover(at, piece.since, shorter, rolled)
        yield piece
        at = piece.until
    yield from _cover(at, until, shorter, rolled)


def _whole(since: int, until: int, level: Level, rolled: Rolled) -> Iterator[Piece]:
    """Yield the parts of a range in which every bucket of the level is a rollup and right."""
    at, end = level.ceil(since), min(level.floor(until), level.floor(rolled.upto))
    for hole, after in _holes(at, end, level, rolled.holes):
        if at < hole:
            yield Piece(level, at, hole)
        at = after
    if at < end:
        yield Piece(level, at, end)


def _holes(since: int, until: int, level: Level, starts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges of buckets that are out of date; many are one, from the first to the last.

    So the text of a query stays short.
    """
    joined: list[tuple[int, int]] = []
    for bucket in sorted({level.floor(start) for start in starts if since <= start < until}):
        if joined and joined[-1][1] == bucket:
            joined[-1] = (joined[-1][0], bucket + level.length)
        else:
            joined.append((bucket, bucket + level.length))
    return joined if len(joined) <= _MOST_HOLES else [(joined[0][0], joined[-1][1])]
