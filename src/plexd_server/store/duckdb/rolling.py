"""Rollups are made of the readings once these are some minutes old, and again if more come late.

``meta.rolled`` moves on piece by piece, each in a transaction of its own, so a kill leaves the rest
for the next start, and a file of an earlier release is filled from its oldest reading on. A reading
that comes later than that makes its five minutes stale, in the transaction of its row: they are
read from the readings until their rollup is made again. So nothing is ever added to a rollup.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from plexd_server.store.duckdb import queries, schema
from plexd_server.store.duckdb.rollups import (
    FIVE,
    GONE,
    HOUR,
    LEVELS,
    MINUTE,
    NEVER,
    ROLLED,
    Level,
    Rolled,
    reading_columns,
    rolled_fields,
    rollup_columns,
    stored_columns,
)
from plexd_server.store.duckdb.runs import composed, of_readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import duckdb

    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.duckdb.runs import Columns

GROUPS: Final = tuple(schema.PAYLOADS)
# Reports come once a minute; what comes later than this is rolled up a second time.
_GRACE: Final = 2 * MINUTE
_MOST_ROWS: Final = 500_000
_NEW: Final = "new_rows"

_MEASURED: Final = "ts >= make_timestamp($since) AND ts < make_timestamp($until)"
_BEGUN: Final = "start >= make_timestamp($since) AND start < make_timestamp($until)"
_ALL: Final = "true"
_CHOSEN: Final = "series IN (SELECT unnest($chosen))"
_NEW_SERIES: Final = (
    "INSERT INTO series "
    "SELECT (SELECT coalesce(max(series), 0) FROM series) + row_number() OVER (), "
    "* FROM (SELECT DISTINCT node_id, {peer} FROM {table} WHERE {measured} "
    "EXCEPT SELECT node_id, peer_id FROM series)"
)
_NEW_STALE: Final = (
    f"INSERT INTO stale SELECT node_id, make_timestamp(start) FROM {_NEW} "  # noqa: S608 -- our own names
    "EXCEPT SELECT node_id, start FROM stale"
)
_OLDEST_STALE: Final = (
    "SELECT epoch_us(min(start)) FROM stale WHERE start < make_timestamp($before)"
)
_STALE_SERIES: Final = (
    f"SELECT series FROM series WHERE node_id IN (SELECT node_id FROM stale WHERE {_BEGUN})"  # noqa: S608 -- our own names
)
_REMOVE_STALE: Final = f"DELETE FROM stale WHERE {_BEGUN}"  # noqa: S608 -- the same
_FORGET_STALE: Final = "DELETE FROM stale WHERE start < make_timestamp($before)"
_ROLLED: Final = (
    f"SELECT any_value(value) FILTER (key = '{ROLLED}'), any_value(value) FILTER (key = '{GONE}'), "  # noqa: S608 -- our own names
    "(SELECT list(epoch_us(start) ORDER BY start) FROM stale WHERE node_id = ?) FROM meta"
)


def _of_groups(fold: str, column: str, where: str = "true") -> str:
    """Return a query for one number of the readings of all groups."""
    tables = map(schema.table_of, GROUPS)
    parts = (f"SELECT {column} AS found FROM {table} WHERE {where}" for table in tables)  # noqa: S608 -- the same
    return f"SELECT {fold} FROM ({' UNION ALL '.join(parts)})"  # noqa: S608 -- the same


_COUNT: Final = _of_groups("sum(found)::BIGINT", "count(*)", _MEASURED)
_OLDEST: Final = _of_groups("epoch_us(min(found))", "min(ts)", "ts >= make_timestamp($since)")
_NEWEST: Final = [
    _of_groups("epoch_us(max(found))", f"max({column})") for column in ("ts", "received_at")
]


def read_rolled(cursor: duckdb.DuckDBPyConnection, node_id: str) -> Rolled:
    """Return what of a node is in rollups."""
    ((upto, gone, holes),) = cursor.execute(_ROLLED, [node_id]).fetchall()
    return Rolled(int(upto), int(gone), holes or ())


class Rollups:
    """The rollups of a database; only the thread that loads it calls this.

    What raises leaves a transaction open, which the caller rolls back.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._upto, self._gone, _ = read_rolled(cursor, "")
        self._newest: list[int] | None = None
        self._may_be_stale = True

    def add(self, rows: Mapping[str, Mapping[str, Column]]) -> None:
        """Note the rows of tables that the open transaction inserts: some may come late."""
        for group in GROUPS:
            columns = rows.get(schema.table_of(group))
            if columns is not None:
                self._note_newest(columns)
                self._note_late(columns)

    def _note_newest(self, columns: Mapping[str, Column]) -> None:
        if self._newest is not None:
            newest = (int(_ticks(columns[name]).max()) for name in ("ts", "received_at"))
            self._newest = [*map(max, self._newest, newest)]

    def _note_late(self, columns: Mapping[str, Column]) -> None:
        stamps = _ticks(columns["ts"])
        if stamps.min() >= self._upto:
            return
        starts = stamps - stamps % FIVE.length
        is_late = (starts < self._upto) & (starts >= self._gone)
        late = {*zip(columns["node_id"][is_late], starts[is_late].tolist(), strict=True)}
        if late:
            nodes, moments = map(list, zip(*late, strict=True))
            with self._registered({"node_id": np.array(nodes, object), "start": np.array(moments)}):
                self._cursor.execute(_NEW_STALE)

    def advance(self, until: int | None = None) -> bool:
        """Make some rollups, in one transaction; return whether there may be more to make.

        Made are those of readings before ``until``, by default of those that are old enough, and
        then those that are stale.
        """
        target = self._settled() if until is None else FIVE.ceil(until)
        if self._upto < target:
            self._move(target)
            self._may_be_stale = True
        elif self._may_be_stale or until is not None:
            self._may_be_stale = self._redo()
        return self._upto < target or self._may_be_stale

    def forget(self, before: int) -> None:
        """Note, in the open transaction, that readings before this time are removed."""
        self._gone = max(self._gone, before)
        self._set(GONE, self._gone)
        self._run(_FORGET_STALE, before=self._gone)

    def expire(self, before: int) -> None:
        """Remove the rollups of what was measured before this time."""
        for level in LEVELS:
            for group in GROUPS:
                statement = (
                    f"DELETE FROM {level.table(group)} WHERE start < make_timestamp($before)"  # noqa: S608 -- our own names
                )
                self._run(statement, before=level.floor(before))

    def _settled(self) -> int:
        """Return up to when readings are old enough, by the arrivals and by the newest stamp.

        So a wrong clock of the server alone, or of a node, makes nothing old.
        """
        if self._newest is None:
            found = (queries.read_one(self._cursor, query) for query in _NEWEST)
            self._newest = [NEVER if newest is None else newest for newest in found]
        return FIVE.floor(min(self._newest) - _GRACE)

    def _move(self, target: int) -> None:
        """Make the next rollups before ``target``."""
        since = self._upto
        until = self._next(since, target)
        if not self._one(_COUNT, since=since, until=until):
            oldest = self._one(_OLDEST, since=since)
            until = target if oldest is None else min(FIVE.floor(oldest), target)
        self._cursor.begin()
        self._roll(since, until)
        if HOUR.floor(until) > HOUR.floor(since):
            self._roll_hour(HOUR.floor(since))
        self._set(ROLLED, until)
        self._cursor.commit()
        self._upto = until

    def _redo(self) -> bool:
        """Make again those of the oldest hour that are stale; return whether there were any."""
        since = self._one(_OLDEST_STALE, before=self._upto)
        if since is None:
            return False
        until, hour = self._next(since, self._upto), HOUR.floor(since)
        self._cursor.begin()
        self._add_series(since, until)
        found = self._run(_STALE_SERIES, since=since, until=until).fetchall()
        chosen = [series for (series,) in found]
        self._roll(since, until, chosen=chosen)
        if hour < HOUR.floor(self._upto):
            self._roll_hour(hour, chosen=chosen)
        self._run(_REMOVE_STALE, since=since, until=until)
        self._cursor.commit()
        return True

    def _next(self, since: int, limit: int) -> int:
        """Return the end of a piece: an hour, or less if there is much in it."""
        until = min(HOUR.floor(since) + HOUR.length, limit)
        if self._one(_COUNT, since=since, until=until) > _MOST_ROWS:
            until = min(FIVE.floor(since) + FIVE.length, limit)
        return until

    def _roll(self, since: int, until: int, **chosen: list[int]) -> None:
        """Make the rollups of five minutes, of all series or those ``chosen``, again if need be."""
        self._add_series(since, until)
        for group in GROUPS:
            self._replace(FIVE, group, since, until, **chosen)

    def _roll_hour(self, hour: int, **chosen: list[int]) -> None:
        """Make the rollups of an hour of those of five minutes, again if need be."""
        for group in GROUPS:
            self._replace(HOUR, group, hour, hour + HOUR.length, **chosen)

    def _add_series(self, since: int, until: int) -> None:
        for group in GROUPS:
            peer = "peer_id" if schema.has_peers(group) else "'' AS peer_id"
            table = schema.table_of(group)
            statement = _NEW_SERIES.format(table=table, peer=peer, measured=_MEASURED)
            self._run(statement, since=since, until=until)

    def _replace(
        self, level: Level, group: str, since: int, until: int, **chosen: list[int]
    ) -> None:
        """Make a table's rollups of a time, a bounded number of rows at once."""
        asked = {"since": since, "until": until, **chosen}
        where = _CHOSEN if chosen else _ALL
        self._run(f"DELETE FROM {level.table(group)} WHERE {_BEGUN} AND {where}", **asked)  # noqa: S608 -- our own names
        source = _of_readings(group) if level is FIVE else _of_fives(group)
        parts = 1 + self._one(source.size, since=since, until=until) // _MOST_ROWS
        for part in range(parts):
            read = source.query.format(where=f"{where} AND series % {parts} = {part}")
            runs = source.runs(self._run(read, **asked).fetchnumpy())
            self._insert(level.table(group), group, composed(rolled_fields(group), level, runs))

    def _insert(self, table: str, group: str, runs: Columns) -> None:
        if not len(runs["series"]):
            return
        fields = rolled_fields(group)
        with self._registered(
            {name: runs[name] for name in ("series", "start", *fields.columns())}
        ):
            run = f"series, make_timestamp(start), {stored_columns(fields)}"
            self._cursor.execute(f"INSERT INTO {table} SELECT {run} FROM {_NEW}")  # noqa: S608 -- our own names

    @contextmanager
    def _registered(self, columns: Columns) -> Iterator[None]:
        self._cursor.register(_NEW, columns)
        try:
            yield
        finally:
            self._cursor.unregister(_NEW)

    def _set(self, key: str, value: int) -> None:
        self._cursor.execute("UPDATE meta SET value = ? WHERE key = ?", [str(value), key])

    def _run(self, statement: str, **parameters: Any) -> duckdb.DuckDBPyConnection:
        return self._cursor.execute(statement, parameters)

    def _one(self, query: str, **parameters: int) -> Any:
        ((found,),) = self._run(query, **parameters).fetchall()
        return found


class _RunSource(NamedTuple):
    """What rollups are made of: a query for rows of a time, their number, and how they are runs."""

    query: str
    size: str
    runs: Callable[[Columns], Columns]


def _of_readings(group: str) -> _RunSource:
    fields, table = rolled_fields(group), schema.table_of(group)
    peer = "p.peer_id" if schema.has_peers(group) else "''"
    query = f"""SELECT series, p.rowid AS place, {reading_columns(fields)}
        FROM {table} p JOIN series s ON s.node_id = p.node_id AND s.peer_id = {peer}
        WHERE {_MEASURED} AND {{where}}"""  # noqa: S608 -- our own names
    count = f"SELECT count(*) FROM {table} WHERE {_MEASURED}"  # noqa: S608 -- the same
    return _RunSource(query, count, partial(of_readings, fields))


def _of_fives(group: str) -> _RunSource:
    values, table = rollup_columns(rolled_fields(group)), FIVE.table(group)
    query = f"""SELECT series, {values} FROM {table} WHERE {_BEGUN} AND {{where}}
        ORDER BY series, {table}.start"""  # noqa: S608 -- our own names
    return _RunSource(query, f"SELECT count(*) FROM {table} WHERE {_BEGUN}", dict)  # noqa: S608 -- the same


def _ticks(times: Column) -> Column:
    return times.view(np.int64)
