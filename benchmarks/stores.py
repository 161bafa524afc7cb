"""Claim: DuckDB is the better embedded store for this job (docs/adr/0006-embedded-store.md).

``python -m benchmarks stores`` copies the points of ``history`` into SQLite, in the order in which
SQLite finds them fastest, and asks both what the pages ask; the answers have to be the same.
``PLEXD_BENCH_POINTS`` and ``PLEXD_BENCH_DIR`` are those of ``history``.

SQLite's tables are in the order (node, peer, time) without row numbers, so that a peer's past is in
one place; nodes and peers are numbers there, times microseconds. Both may use the same amount of
memory. For a join of names SQLite's planner would read all rows; with CROSS JOIN it looks each name
up.
"""

from __future__ import annotations

import math
import os
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb

from benchmarks.history import POINTS, write_points
from benchmarks.measure import table
from plexd_server.store.duckdb import queries, schema
from plexd_server.store.payloads import PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Row = tuple[Any, ...]
    Connection = duckdb.DuckDBPyConnection | sqlite3.Connection

QUESTIONS: Final = 20
_CHUNK_ROWS: Final = 30_000
_MEMORY_MB: Final = 256
_NODE, _PEER = "sim-7", "sim-8"
_NUMBERED: Final = ("node_id", "peer_id")
_NODES: Final = "SELECT DISTINCT node_id FROM points_system ORDER BY node_id"
_PEER_TIME: Final = timedelta(minutes=queries.PEER_MINUTES)


def main() -> None:
    """Write and copy the points unless they are there, then print the table."""
    with TemporaryDirectory() as directory:
        data = Path(os.environ.get("PLEXD_BENCH_DIR") or directory) / "data"
        if not data.exists():
            write_points(data)
        duck, lite = data / "points.duckdb", data / "points.sqlite"
        with closing(duckdb.connect(duck, read_only=True)) as source:
            source.execute(f"SET memory_limit = '{_MEMORY_MB}MB'")
            source.execute("SET threads = 2")
            if not lite.exists():
                copy(source, lite)
            with closing(_open(lite)) as target:
                rows = [_compared(source, target, question) for question in _questions(source)]
        sizes = [f"{path.stat().st_size / POINTS:.1f}" for path in (duck, lite)]
    heads = ["", "DuckDB", "p95", "SQLite", "p95"]
    title = f"{POINTS:,} points: median wall time of an answer in ms, {QUESTIONS} questions each"
    table(title, heads, [*rows, ["bytes a point", sizes[0], "", sizes[1], ""]])


def copy(source: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Copy all points as they would come, by time; report what inserting them takes."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    took = 0.0
    with closing(_open(draft)) as target:
        target.execute("CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
        names: dict[str, int] = {}
        for group in PAYLOADS:
            target.execute(_create(group))
        for group, rows in _chunks(source):
            began = time.process_time()
            _insert(target, group, rows, names)
            took += time.process_time() - began
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    draft.rename(path)
    sys.stderr.write(f"SQLite: {took / POINTS * 1e6:.1f} us of CPU a point to insert\n")


def _open(path: Path) -> sqlite3.Connection:
    target = sqlite3.connect(path, isolation_level=None)
    target.execute("PRAGMA journal_mode = WAL")
    target.execute("PRAGMA synchronous = FULL")
    target.execute(f"PRAGMA cache_size = -{_MEMORY_MB * 1000}")
    return target


def _columns(group: str) -> list[str]:
    peer = ["peer_id"] if schema.has_peers(group) else []
    fields = [field for field in schema.data_fields(group) if field != "peer_id"]
    return ["node_id", *peer, "ts", "received_at", *fields]


def _create(group: str) -> str:
    columns = _columns(group)
    kinds = {c: "REAL" if _is_real(c) else "INTEGER" for c in columns}
    key = ", ".join(columns[: columns.index("received_at")])
    declared = ", ".join(f"{column} {kind} NOT NULL" for column, kind in kinds.items())
    return f"CREATE TABLE points_{group}({declared}, PRIMARY KEY ({key})) WITHOUT ROWID"


def _is_real(column: str) -> bool:
    is_ours = column in (*_NUMBERED, "ts", "received_at")
    return not is_ours and schema.column_type(column) == "DOUBLE"


def _is_time(column: str) -> bool:
    return column in ("ts", "received_at") or schema.column_type(column) == "TIMESTAMP"


def _chunks(source: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[Row]]]:
    for group in PAYLOADS:
        read = (f"epoch_us({c})" if _is_time(c) else c for c in _columns(group))
        found = source.execute(f"SELECT {', '.join(read)} FROM points_{group}")  # noqa: S608 -- our own names
        while rows := found.fetchmany(_CHUNK_ROWS):
            yield group, rows


def _insert(target: sqlite3.Connection, group: str, rows: list[Row], names: dict[str, int]) -> None:
    """Insert the rows in one transaction; new names get the next numbers."""
    numbered = _columns(group).index("ts")
    target.execute("BEGIN")
    for name in {name for row in rows for name in row[:numbered]} - names.keys():
        names[name] = len(names)
        target.execute("INSERT INTO names VALUES (?, ?)", (names[name], name))
    values = ([*map(names.__getitem__, row[:numbered]), *row[numbered:]] for row in rows)
    places = ", ".join("?" * len(_columns(group)))
    target.executemany(f"INSERT INTO points_{group} VALUES ({places})", values)  # noqa: S608 -- our own names
    target.execute("COMMIT")


class Statement(NamedTuple):
    """What one store is asked."""

    text: str
    parameters: Sequence[Any] = ()


class Question(NamedTuple):
    """The same question to both stores; a page may need several statements."""

    name: str
    of_duckdb: Sequence[Statement]
    of_sqlite: Sequence[Statement]


def _questions(source: duckdb.DuckDBPyConnection) -> Iterator[Question]:
    """Yield what the server asks its store for the pages and, last, what it asks at its start."""
    found = source.execute("SELECT max(ts) FROM points_system").fetchall()
    until = found[0][0].replace(tzinfo=UTC) + timedelta(seconds=1)
    nodes = [name for (name,) in source.execute(_NODES).fetchall()]
    yield Question("node: newest readings", *_latest(_NODE, until))
    for hours in (1, 24):
        span = (until - timedelta(hours=hours), until)
        machine = ("cpu_usage_percent", "memory_used_bytes", "network_rx_bytes", "load_avg_1")
        yield Question(f"node: charts of {hours} h", *_series("system", machine, *span))
        yield Question(f"link: round trip of {hours} h", *_series("latency", ("rtt_nano",), *span))
        yield Question(f"link: traffic of {hours} h", *_series("tunnel", ("rx_bytes",), *span))
    yield Question("fleet", [Statement(queries.fleet_query())], [_fleet()])
    every = [_latest(node, until) for node in nodes]
    yield Question(
        "newest of all peers", [s for d, _ in every for s in d], [s for _, q in every for s in q]
    )


def _fields(group: str) -> str:
    return ", ".join(field for field in schema.data_fields(group) if field != "peer_id")


def _number(name: str) -> str:
    return f"(SELECT id FROM names WHERE name = '{name}')"  # noqa: S608 -- our own names


def _latest(node: str, until: datetime) -> tuple[list[Statement], list[Statement]]:
    since = until - _PEER_TIME
    groups = PAYLOADS
    duck = [Statement(queries.latest_query(g), (node, since.replace(tzinfo=None))) for g in groups]
    lite = []
    for group in groups:
        table_name, peer = f"points_{group}", ""
        newest = f"SELECT max(ts) FROM {table_name} WHERE node_id = {_number(node)}"  # noqa: S608 -- our own names
        chosen = f"FROM {table_name} t WHERE node_id = {_number(node)} AND ts = ({newest})"
        order = ""
        if schema.has_peers(group):
            peer = ", name"
            chosen = (
                f"FROM names p CROSS JOIN {table_name} t ON t.node_id = {_number(node)} "
                f"AND t.peer_id = p.id AND t.ts = ({newest} AND peer_id = p.id) WHERE t.ts >= ?"
            )
            order = " ORDER BY name"
        text = f"SELECT ts, received_at{peer}, {_fields(group)} {chosen}{order}"
        lite.append(Statement(text, (_ticks(since),) if peer else ()))
    return duck, lite


def _fleet() -> Statement:
    return Statement(
        f"SELECT name, ts AS newest, ts, received_at, {_fields('system')} "  # noqa: S608 -- our own names
        "FROM names n CROSS JOIN points_system s ON s.node_id = n.id "
        "AND s.ts = (SELECT max(ts) FROM points_system WHERE node_id = n.id)"
    )


def _series(
    group: str, fields: tuple[str, ...], since: datetime, until: datetime
) -> tuple[list[Statement], list[Statement]]:
    rates = frozenset(f for f in fields if f.endswith("x_bytes"))
    step = (until - since) / 120
    folds = ", ".join(f"{fold}({f})" for f in fields for fold in ("avg", "min", "max"))
    peer = f"AND peer_id = {_number(_PEER)}" if schema.has_peers(group) else ""
    width = round(step.total_seconds() * 1e6)

    def text(ticks: str, bucket: str, node: str, peer: str) -> str:
        values = ", ".join(f"{_rate(f, ticks) if f in rates else _gauge(f)} AS {f}" for f in fields)
        return (
            f"WITH readings AS (SELECT ts, {values} FROM points_{group} WHERE node_id = "  # noqa: S608 -- our own names
            f"{node} {peer} AND ts >= ? AND ts < ? WINDOW w AS (ORDER BY ts)) "
            f"SELECT {bucket} AS bucket, {folds} FROM readings GROUP BY bucket"
        )

    duck_peer = f"AND peer_id = '{_PEER}'" if peer else ""
    bucket = f"time_bucket(to_microseconds({width}), ts)"
    duck = text("epoch_us(ts)", bucket, f"'{_NODE}'", duck_peer)
    lite = text("ts", f"ts / {width} * {width}", str(_number(_NODE)), peer)
    return (
        [Statement(duck, (since.replace(tzinfo=None), until.replace(tzinfo=None)))],
        [Statement(lite, (_ticks(since), _ticks(until)))],
    )


def _gauge(field: str) -> str:
    return f"nullif({field}, -1) * 1e0"


def _rate(field: str, ticks: str) -> str:
    """Return the change per second since the reading before, of equal weight for both engines."""
    passed, change = (f"({value} - lag({value}) OVER w)" for value in (ticks, f"{field} * 1e0"))
    return f"CASE WHEN {change} >= 0 AND {passed} > 0 THEN {change} * 1e6 / {passed} END"


def _ticks(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _compared(
    source: duckdb.DuckDBPyConnection, target: sqlite3.Connection, question: Question
) -> list[str]:
    """Return a row of the table. Raises if the answers differ."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(QUESTIONS):
        mine = _asked(source, question.of_duckdb, took[0])
        other = _asked(target, question.of_sqlite, took[1])
        for one, two in zip(mine, other, strict=True):
            _require_same(question.name, one, two)
    cells = [question.name]
    for times in took:
        cells += [f"{statistics.median(times):.1f}", f"{statistics.quantiles(times, n=20)[-1]:.1f}"]
    return cells


def _asked(
    connection: Connection, statements: Sequence[Statement], times: list[float]
) -> list[list[Row]]:
    """Return the rows of each statement; append the milliseconds that all took."""
    began = time.perf_counter()
    rows = [connection.execute(each.text, each.parameters).fetchall() for each in statements]
    times.append(1000 * (time.perf_counter() - began))
    return rows


def _require_same(name: str, mine: Sequence[Row], other: Sequence[Row]) -> None:
    if not mine:
        raise RuntimeError(f"{name}: nothing was found")
    pairs = zip(sorted(map(_plain, mine)), sorted(map(_plain, other)), strict=True)
    for one, two in pairs:
        for a, b in zip(one, two, strict=True):
            is_same = math.isclose(a, b, rel_tol=1e-9) if isinstance(a, float) else a == b
            if not is_same:
                raise RuntimeError(f"{name}: {one} is not {two}")


def _plain(row: Row) -> tuple[Any, ...]:
    values = (_ticks(v.replace(tzinfo=UTC)) if isinstance(v, datetime) else v for v in row)
    return tuple(-math.inf if v is None else float(v) if isinstance(v, int) else v for v in values)


if __name__ == "__main__":
    main()
