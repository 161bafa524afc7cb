"""Rollups are put in order of their series when a time is over; so those of a link lie together.

They are made for all series every five minutes, so a link's day is one row in each of 288 places,
and DuckDB reads some thousand rows for each. In order of series it skips what is not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plexd_server.store.duckdb import queries
from plexd_server.store.duckdb.rollups import (
    FIVE,
    HOUR,
    ORDERED,
    Level,
    insert_runs,
    rolled_fields,
    rollup_columns,
)
from plexd_server.store.duckdb.transactions import transaction
from plexd_server.store.payloads import PAYLOADS

if TYPE_CHECKING:
    import duckdb

    from plexd_server.store.duckdb.runs import Columns

_SPANS: Final = {FIVE: 6 * HOUR.length, HOUR: 30 * 24 * HOUR.length}
MOST_ROWS: Final = 20_000  # of a table at once
_CHOSEN: Final = (
    "start >= make_timestamp($since) AND start < make_timestamp($until) "
    "AND series >= $first AND series < $after"
)


class RollupOrder:
    """The order of a level's rollups; only the thread that loads calls this."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, level: Level) -> None:
        self._cursor = cursor
        self._level = level
        self._span = _SPANS[level]
        self._at_once = max(1, MOST_ROWS * level.length // self._span)
        self._key = ORDERED.format(level.name)
        upto = "SELECT value::BIGINT FROM meta WHERE key = ?"
        self._since: int = queries.read_one(cursor, upto, self._key)
        self._series = 0
        oldest = " UNION ALL ".join(
            f"SELECT min(start) AS start FROM {level.table(group)} "  # noqa: S608 -- our own names
            "WHERE start >= make_timestamp($since)"
            for group in PAYLOADS
        )
        self._oldest = f"SELECT epoch_us(min(start)) FROM ({oldest})"  # noqa: S608 -- the same

    def advance(self, rolled: int) -> bool:
        """Put some series in order, of the oldest time that is over; return whether there were any.

        A kill leaves that time to the next start, which begins it again.
        """
        if not self._series and not self._is_over(rolled):
            return False
        after = self._series + self._at_once
        is_last = after > queries.read_one(self._cursor, "SELECT max(series) FROM series")
        with transaction(self._cursor):
            for group in PAYLOADS:
                self._arrange(group, after)
            if is_last:
                self._note(self._since + self._span)
        self._series = 0 if is_last else after
        self._since += self._span * is_last
        return True

    def _is_over(self, rolled: int) -> bool:
        """Find the oldest time that is not in order yet, and return whether it is over."""
        if rolled < self._since + self._span:
            return False
        ((oldest,),) = self._cursor.execute(self._oldest, {"since": self._since}).fetchall()
        if oldest is None:
            return False
        self._since = oldest - oldest % self._span
        return rolled >= self._since + self._span

    def _arrange(self, group: str, after: int) -> None:
        table, fields = self._level.table(group), rolled_fields(group)
        asked: dict[str, Any] = {"since": self._since, "until": self._since + self._span}
        asked |= {"first": self._series, "after": after}
        read = f"""SELECT series, epoch_us({table}.start) AS start, {rollup_columns(fields)}
            FROM {table} WHERE {_CHOSEN} ORDER BY series, {table}.start"""  # noqa: S608 -- our own names
        runs: Columns = self._cursor.execute(read, asked).fetchnumpy()
        if not len(runs["series"]):
            return
        self._cursor.execute(f"DELETE FROM {table} WHERE {_CHOSEN}", asked)  # noqa: S608 -- the same
        insert_runs(self._cursor, self._level, group, runs)

    def _note(self, upto: int) -> None:
        self._cursor.execute("UPDATE meta SET value = ? WHERE key = ?", [str(upto), self._key])
