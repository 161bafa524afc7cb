"""Rollups are made of the readings once these are some minutes old, and again if more come late.

``meta.rolled`` moves on piece by piece, each in a transaction of its own, so a kill leaves the rest
for the next start, and a file of an earlier release is filled from its oldest reading on. A reading
that comes later than that makes its node's five minutes stale, in the transaction of its row: they
are read from the readings until their rollup is made again. So nothing is ever added to a rollup.

Nothing is loaded while a piece is made, so none has many rows: five minutes with more of them are
stale for all their nodes at first, and are made some nodes at once.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from plexd_server.store.duckdb import queries, schema
from plexd_server.store.duckdb.rollup_order import RollupOrder
from plexd_server.store.duckdb.rollups import (
    FIVE,
    GONE,
    HOUR,
    LEVELS,
    MINUTE,
    NEVER,
    NEW_ROWS,
    ROLLED,
    Level,
    Rolled,
    insert_runs,
    reading_columns,
    registered,
    rolled_fields,
    rollup_columns,
)
from plexd_server.store.duckdb.runs import composed, of_readings
from plexd_server.store.duckdb.transactions import transaction
from plexd_server.store.payloads import PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import duckdb

    from plexd_server.store.duckdb.columns import Column
    from plexd_server.store.duckdb.runs import Columns

GROUPS: Final = tuple(PAYLOADS)
MOST_ROWS: Final = 150_000  # of a piece
# Of a node's five minutes; with more, which only a broken node sends, they have no rollup.
MOST_OF_A_NODE: Final = 2_000_000
_MOST_NODES: Final = 1000  # that are counted for a piece
# Reports come once a minute; what comes later than this is rolled up a second time.
_GRACE: Final = 2 * MINUTE
_LENGTHS: Final = (24 * HOUR.length, HOUR.length, FIVE.length)
_SHORTEST: Final = _LENGTHS[-1:]
_REDO_SECONDS: Final = 300.0

_MEASURED: Final = "ts >= make_timestamp($since) AND ts < make_timestamp($until)"
_BEGUN: Final = "start >= make_timestamp($since) AND start < make_timestamp($until)"
_OF_NODES: Final = "node_id IN (SELECT unnest($nodes::VARCHAR[]))"
_FIVE_OF: Final = "time_bucket(INTERVAL 5 MINUTE, ts)"
_NEW_SERIES: Final = (
    "INSERT INTO series "
    "SELECT (SELECT coalesce(max(series), 0) FROM series) + row_number() OVER (), "
    "* FROM (SELECT DISTINCT node_id, {peer} FROM {table} WHERE {where} "
    "EXCEPT SELECT node_id, peer_id FROM series)"
)
_MARK: Final = "INSERT INTO stale ({late}) EXCEPT SELECT node_id, start FROM stale"
_LATE: Final = f"SELECT node_id, make_timestamp(start) FROM {NEW_ROWS}"  # noqa: S608 -- our own names
_OLDEST_STALE: Final = f"SELECT epoch_us(min(start)) FROM stale WHERE {_BEGUN}"  # noqa: S608 -- our own names
_STALE: Final = f"SELECT node_id, start FROM stale WHERE {_BEGUN}"  # noqa: S608 -- the same
_STALE_NODES: Final = (
    f"SELECT DISTINCT node_id FROM stale WHERE {_BEGUN} ORDER BY node_id LIMIT {_MOST_NODES}"  # noqa: S608 -- the same
)
_IS_STALE: Final = f"(p.node_id, {_FIVE_OF}) IN ({_STALE} AND {_OF_NODES})"
_COUNT_OF_NODES: Final = (
    f"SELECT node_id, count(*) FROM {{table}} p WHERE {_MEASURED} AND {{where}} GROUP BY node_id"  # noqa: S608 -- the same
)
_NODES_READ: Final = f"SELECT DISTINCT node_id, {_FIVE_OF} FROM {{table}} WHERE {_MEASURED}"  # noqa: S608 -- the same
_NODES_ROLLED: Final = (
    "SELECT DISTINCT node_id, make_timestamp($end) FROM {table} JOIN series USING (series) "  # noqa: S608 -- the same
    f"WHERE {_BEGUN}"
)
_KEEP: Final = (
    f"DELETE FROM stale WHERE {_BEGUN} AND start < make_timestamp($gone) AND (node_id, start) IN "  # noqa: S608 -- the same
    f"(SELECT node_id, start FROM {{table}} JOIN series USING (series) WHERE {_BEGUN})"
)
_FIVES_OF_STALE: Final = (
    "(series, start) IN (SELECT series, start FROM stale JOIN series USING (node_id) "  # noqa: S608 -- the same
    f"WHERE {_BEGUN} AND {_OF_NODES})"
)
_OF_SERIES: Final = f"series IN (SELECT series FROM series WHERE {_OF_NODES})"  # noqa: S608 -- the same
_COUNT_ROLLUPS: Final = (
    "SELECT node_id, count(*) FROM {table} JOIN series USING (series) "  # noqa: S608 -- the same
    f"WHERE {_BEGUN} AND {_OF_NODES} GROUP BY node_id"
)
_REMOVE: Final = f"DELETE FROM {{table}} WHERE {_BEGUN} AND {{chosen}}"  # noqa: S608 -- the same
_REMOVE_STALE: Final = f"DELETE FROM stale WHERE {_BEGUN} AND {_OF_NODES}"  # noqa: S608 -- the same
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


_OLDEST: Final = _of_groups("epoch_us(min(found))", "min(ts)", "ts >= make_timestamp($since)")
_NEWEST: Final = [
    _of_groups("epoch_us(max(found))", f"max({column})") for column in ("ts", "received_at")
]


def read_rolled(cursor: duckdb.DuckDBPyConnection, node_id: str) -> Rolled:
    """Return what of a node is in rollups."""
    ((upto, gone, found),) = cursor.execute(_ROLLED, [node_id]).fetchall()
    # Where readings are gone a rollup is right, or there is none yet.
    holes = [start for start in found or () if start >= int(gone)]
    return Rolled(int(upto), int(gone), holes)


class _Portion(NamedTuple):
    """A time of which rollups are made.

    Attributes:
        groups: those with readings in it.
        is_small: whether all of it may be made at once.
    """

    since: int
    until: int
    groups: list[str]
    is_small: bool

    def hours(self) -> tuple[int, int]:
        """Return the hours of which it has something."""
        return HOUR.floor(self.since), HOUR.ceil(self.until)


class Rollups:
    """The rollups of a database; only the thread that loads it calls this."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._upto, self._gone, _ = read_rolled(cursor, "")
        self._newest: list[int] | None = None
        self._large: int | None = None
        self._readings: Counter[str] | None = None
        self._redo_at = 0.0
        self._orders = [RollupOrder(cursor, level) for level in LEVELS]

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
        is_late = starts < self._upto
        late = {*zip(columns["node_id"][is_late], starts[is_late].tolist(), strict=True)}
        nodes, moments = map(list, zip(*late, strict=True))
        with registered(
            self._cursor, {"node_id": np.array(nodes, object), "start": np.array(moments)}
        ):
            self._cursor.execute(_MARK.format(late=_LATE))

    def advance(self, until: int | None = None) -> bool:
        """Make some rollups, in one transaction; return whether there may be more to make.

        Made are those of readings before ``until``, by default of those that are old enough, and
        then, now and again, those that are stale. At the end what is there is put in order.
        """
        target = self._settled() if until is None else FIVE.ceil(until)
        if self._large is not None and self._redo(self._large):
            return True
        self._large = self._readings = None
        if self._upto < target:
            self._move(target)
            self._redo_at = 0.0
            return True
        # Late points may come all the time, and clocks that were ahead may keep the target there.
        if until is None and time.monotonic() < self._redo_at:
            return self._arrange()
        if self._redo(NEVER):
            return True
        self._redo_at = time.monotonic() + _REDO_SECONDS
        return until is None and self._arrange()

    def _arrange(self) -> bool:
        return any(order.advance(self._upto) for order in self._orders)

    def forget(self, before: int) -> None:
        """Note, in the open transaction, that readings before this time are removed."""
        self._gone = max(self._gone, before)
        self._set(GONE, self._gone)
        self._run(_FORGET_STALE, before=before)

    def expire(self, before: int) -> None:
        """Remove the rollups of what was measured before this time, by whole hours."""
        with transaction(self._cursor):
            for table in (level.table(group) for level in LEVELS for group in GROUPS):
                statement = f"DELETE FROM {table} WHERE start < make_timestamp($before)"  # noqa: S608 -- our own names
                self._run(statement, before=HOUR.floor(before))

    def _settled(self) -> int:
        """Return up to when readings are old enough, by the arrivals and by the newest stamp.

        So a wrong clock of the server alone, or of a node, makes nothing old.
        """
        if self._newest is None:
            found = (queries.read_one(self._cursor, query) for query in _NEWEST)
            self._newest = [NEVER if newest is None else newest for newest in found]
        return FIVE.floor(min(self._newest) - _GRACE)

    def _move(self, target: int) -> None:
        """Make the next rollups before ``target``, or note that they have to be made."""
        piece = self._next(self._upto, target)
        if not piece.groups:
            oldest = self._one(_OLDEST, since=piece.since)
            until = target if oldest is None else min(FIVE.floor(oldest), target)
            piece = piece._replace(until=until)
        with transaction(self._cursor):
            if piece.is_small:
                self._make(piece)
            else:
                self._mark(piece)
            self._set(ROLLED, piece.until)
        self._upto = piece.until
        self._large = None if piece.is_small else piece.since
        # Counted once: that reads all of them, which what is made of some nodes does anyway.
        self._readings = None if piece.is_small else self._count(piece)

    def _make(self, piece: _Portion) -> None:
        for group in piece.groups:
            self._insert(FIVE, group, _of_readings(group), since=piece.since, until=piece.until)
        first, last = HOUR.floor(piece.since), HOUR.floor(piece.until)
        if first < last:
            for group in GROUPS:
                self._insert(HOUR, group, _of_fives(group), since=first, until=last)

    def _mark(self, piece: _Portion) -> None:
        """Make everything stale that has to be made: the five minutes, and the hour that ends."""
        for group in piece.groups:
            late = _NODES_READ.format(table=schema.table_of(group))
            self._run(_MARK.format(late=late), since=piece.since, until=piece.until)
        first = HOUR.floor(piece.since)
        if HOUR.floor(piece.until) > first:
            # Of the nodes that are silent since: none of their readings is that late, nor gone.
            end = first + HOUR.length - FIVE.length
            for group in GROUPS:
                late = _NODES_ROLLED.format(table=FIVE.table(group))
                self._run(_MARK.format(late=late), since=first, until=piece.since, end=end)

    def _redo(self, after: int) -> bool:
        """Make again what is stale in the oldest piece of a time; return whether there was any."""
        since = self._one(_OLDEST_STALE, since=after, until=self._upto)
        if since is None:
            return False
        piece = self._next(since, self._upto, _LENGTHS if self._large is None else _SHORTEST)
        with transaction(self._cursor):
            if since < self._gone:
                self._keep_what_is_gone(piece)
            nodes, too_many = self._choose(piece)
            self._make_again(piece, nodes)
            self._run(_REMOVE_STALE, since=since, until=piece.until, nodes=[*nodes, *too_many])
        return True

    def _keep_what_is_gone(self, piece: _Portion) -> None:
        """Leave rollups as they are whose readings are gone, whatever comes later."""
        for group in GROUPS:
            keep = _KEEP.format(table=FIVE.table(group))
            self._run(keep, since=piece.since, until=piece.until, gone=self._gone)

    def _choose(self, piece: _Portion) -> tuple[list[str], list[str]]:
        """Return the stale nodes that are made at once, and those with too many readings."""
        found = self._run(_STALE_NODES, since=piece.since, until=piece.until).fetchall()
        stale = [node for (node,) in found]
        rows = self._readings or self._count(piece, _IS_STALE, nodes=stale)
        too_many = [node for node in stale if rows[node] > MOST_OF_A_NODE]
        others = [node for node in stale if rows[node] <= MOST_OF_A_NODE]
        rows = rows + self._count_rollups(piece, others)
        totals = accumulate(rows[node] for node in others)
        fitting = sum(total <= MOST_ROWS for total in totals)
        return others[: max(1, fitting)], too_many

    def _count(self, piece: _Portion, where: str = "true", **nodes: list[str]) -> Counter[str]:
        """Return how many readings each node has in it."""
        found = Counter[str]()
        for group in piece.groups:
            count = _COUNT_OF_NODES.format(table=schema.table_of(group), where=where)
            asked = self._run(count, since=piece.since, until=piece.until, **nodes)
            found.update(dict(asked.fetchall()))
        return found

    def _count_rollups(self, piece: _Portion, nodes: list[str]) -> Counter[str]:
        """Return of how many rollups the hours of each node are made again, if it may be many."""
        first, last = self._hours(piece)
        found = Counter[str]()
        for group in GROUPS if first < last and not piece.is_small else ():
            count = _COUNT_ROLLUPS.format(table=FIVE.table(group))
            found.update(dict(self._run(count, since=first, until=last, nodes=nodes).fetchall()))
        return found

    def _hours(self, piece: _Portion) -> tuple[int, int]:
        """Return those of its hours that are over."""
        first, last = piece.hours()
        return first, min(last, HOUR.floor(self._upto))

    def _make_again(self, piece: _Portion, nodes: list[str]) -> None:
        asked = {"since": piece.since, "until": piece.until, "nodes": nodes}
        for group in piece.groups:
            self._run(_REMOVE.format(table=FIVE.table(group), chosen=_FIVES_OF_STALE), **asked)
            self._insert(FIVE, group, _of_readings(group, _IS_STALE), **asked)
        first, last = self._hours(piece)
        if first < last:
            asked |= {"since": first, "until": last}
            for group in GROUPS:
                self._run(_REMOVE.format(table=HOUR.table(group), chosen=_OF_SERIES), **asked)
                self._insert(HOUR, group, _of_fives(group, _OF_SERIES), **asked)

    def _next(self, since: int, limit: int, lengths: Sequence[int] = _LENGTHS) -> _Portion:
        """Return the next piece: of the longest length, or a shorter one if there is much in it."""
        ends = (min(since - since % length + length, limit) for length in lengths)
        *later, earliest = dict.fromkeys(ends)  # each is counted once
        pieces = (self._portion(since, until) for until in later)
        fitting = next((piece for piece in pieces if piece.is_small), None)
        return fitting or self._portion(since, earliest)

    def _portion(self, since: int, until: int) -> _Portion:
        piece = _Portion(since, until, [], is_small=True)
        counts = self._counts(piece)
        groups = [group for group, count in zip(GROUPS, counts, strict=False) if count]
        return piece._replace(groups=groups, is_small=sum(counts) <= MOST_ROWS)

    def _counts(self, piece: _Portion) -> list[int]:
        """Return the readings of each group, and then the rollups in its hours; not all if many."""
        first, last = piece.hours()
        tables = [(schema.table_of(group), _MEASURED) for group in GROUPS]
        begun = "start >= make_timestamp($first) AND start < make_timestamp($last)"
        tables += [(FIVE.table(group), begun) for group in GROUPS]
        parts = (
            f"(SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {where} LIMIT {MOST_ROWS + 1}))"  # noqa: S608 -- our own names
            for table, where in tables
        )
        asked = {"since": piece.since, "until": piece.until, "first": first, "last": last}
        (counts,) = self._run(f"SELECT {', '.join(parts)}", **asked).fetchall()
        return [*counts]

    def _insert(self, level: Level, group: str, source: _RunSource, **asked: Any) -> None:
        """Make a table's rollups of what is asked for: a time, and some nodes."""
        fields = rolled_fields(group)
        runs = composed(fields, level, source.runs(self._read(group, source.query, **asked)))
        insert_runs(self._cursor, level, group, runs)

    def _read(self, group: str, query: str, **asked: Any) -> Columns:
        """Read what is asked for; series that are new get their numbers first."""
        found: Columns = self._run(query, **asked).fetchnumpy()
        if not found["series"].all():
            self._add_series(group, **asked)
            found = self._run(query, **asked).fetchnumpy()
        return found

    def _add_series(self, group: str, **asked: Any) -> None:
        peer = "peer_id" if schema.has_peers(group) else "'' AS peer_id"
        where = f"{_MEASURED} AND {_OF_NODES}" if "nodes" in asked else _MEASURED
        statement = _NEW_SERIES.format(peer=peer, table=schema.table_of(group), where=where)
        self._run(statement, **asked)

    def _set(self, key: str, value: int) -> None:
        self._cursor.execute("UPDATE meta SET value = ? WHERE key = ?", [str(value), key])

    def _run(self, statement: str, **parameters: Any) -> duckdb.DuckDBPyConnection:
        return self._cursor.execute(statement, parameters)

    def _one(self, query: str, **parameters: int) -> Any:
        ((found,),) = self._run(query, **parameters).fetchall()
        return found


class _RunSource(NamedTuple):
    """What rollups are made of: a query for rows of a time, and how they are runs."""

    query: str
    runs: Callable[[Columns], Columns]


def _of_readings(group: str, where: str = "true") -> _RunSource:
    fields, table = rolled_fields(group), schema.table_of(group)
    peer = "p.peer_id" if schema.has_peers(group) else "''"
    query = f"""SELECT coalesce(series, 0) AS series, p.rowid AS place, {reading_columns(fields)}
        FROM {table} p LEFT JOIN series s ON s.node_id = p.node_id AND s.peer_id = {peer}
        WHERE {_MEASURED} AND {where}"""  # noqa: S608 -- our own names
    return _RunSource(query, partial(of_readings, fields))


def _of_fives(group: str, where: str = "true") -> _RunSource:
    values, table = rollup_columns(rolled_fields(group)), FIVE.table(group)
    query = f"""SELECT series, {values} FROM {table} WHERE {_BEGUN} AND {where}
        ORDER BY series, {table}.start"""  # noqa: S608 -- our own names
    return _RunSource(query, dict)


def _ticks(times: Column) -> Column:
    return times.view(np.int64)
