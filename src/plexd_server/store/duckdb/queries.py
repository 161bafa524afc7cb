"""What the embedded store reads from its tables: the SQL text, and the values made of the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plexd.api import GROUP_SYSTEM
from plexd_server.store.duckdb.schema import PAYLOADS, TABLES, data_fields, has_peers, table_of
from plexd_server.store.marks import LOSSES_IN_LEDGER, Mark, make_ledger
from plexd_server.store.port import Ledger, Loss, NodeSummary, Series, SeriesQuery, StoredPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb


PEER_MINUTES: Final = 15  # how long after its last point a peer still counts
_PEER_TIME: Final = timedelta(minutes=PEER_MINUTES)
_DAY: Final = timedelta(days=1)
_FIRST_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)
_MINUS_ONE_IS_NONE: Final = frozenset({"rtt_nano", "packet_loss_percent"})

_MARK_FIELDS: Final = Mark.__struct_fields__
_LOSS_FIELDS: Final = Loss.__struct_fields__
_VALID_RECEIPTS: Final = (
    f"SELECT {', '.join(_MARK_FIELDS)} FROM receipts WHERE ordinal IN "  # noqa: S608 -- our own names
    "(SELECT max(ordinal) FROM receipts {where} GROUP BY node_id, epoch) ORDER BY ordinal"
)
_ALL_MARKS: Final = _VALID_RECEIPTS.format(where="")
_MARKS_OF_NODE: Final = _VALID_RECEIPTS.format(where="WHERE node_id = ?")
_MARK_OF_EPOCH: Final = _VALID_RECEIPTS.format(where="WHERE node_id = ? AND epoch = ?")
_LOSSES_OF_NODE: Final = (
    f"SELECT {', '.join(_LOSS_FIELDS)} FROM losses WHERE node_id = ? "  # noqa: S608 -- our own names
    f"ORDER BY rowid DESC LIMIT {LOSSES_IN_LEDGER}"
)
_MOST_OTHERS: Final = 1000
_NEWEST_OTHERS: Final = (
    'SELECT ts, received_at, "group", peer_id, data FROM points_other '  # noqa: S608 -- a number of ours
    'WHERE node_id = ? QUALIFY row_number() OVER (PARTITION BY "group", peer_id '
    f'ORDER BY received_at DESC, rowid DESC) = 1 ORDER BY "group", peer_id LIMIT {_MOST_OTHERS}'
)
TOTAL_RECEIVED: Final = f"SELECT coalesce(sum(received), 0)::BIGINT FROM ({_ALL_MARKS})"  # noqa: S608 -- our own names


def _extreme(fold: str) -> str:
    times = " UNION ALL ".join(f"SELECT {fold}(ts) AS ts FROM points_{group}" for group in TABLES)  # noqa: S608 -- our own names
    return f"SELECT {fold}(ts) FROM ({times})"  # noqa: S608 -- our own names


OLDEST_POINT: Final = _extreme("min")
NEWEST_POINT: Final = _extreme("max")


def read_one(connection: duckdb.DuckDBPyConnection, query: str, *parameters: Any) -> Any:
    """Return the one value that the query finds, if any.

    All rows are read: an unread rest keeps a transaction open, and that blocks every checkpoint.
    """
    rows = connection.execute(query, parameters).fetchall()
    return rows[0][0] if rows else None


def read_meta(connection: duckdb.DuckDBPyConnection, key: str) -> int | None:
    """Return a number of the table ``meta``; None if it is not there."""
    value = read_one(connection, "SELECT value FROM meta WHERE key = ?", key)
    return None if value is None else int(value)


def read_time(connection: duckdb.DuckDBPyConnection, query: str) -> datetime | None:
    """Return the one time that the query finds, if any."""
    found = read_one(connection, query)
    return None if found is None else _utc(found)


def read_marks(cursor: duckdb.DuckDBPyConnection) -> Iterator[Mark]:
    """Return all valid marks, in order of ``ordinal``."""
    return _marks(cursor, _ALL_MARKS)


def read_mark(cursor: duckdb.DuckDBPyConnection, node_id: str, epoch: str) -> Mark | None:
    """Return the valid mark of an epoch, if it has one."""
    return next(_marks(cursor, _MARK_OF_EPOCH, node_id, epoch), None)


def read_marks_of(cursor: duckdb.DuckDBPyConnection, node_id: str) -> list[Mark]:
    """Return the valid marks of a node, in order of ``ordinal``."""
    return list(_marks(cursor, _MARKS_OF_NODE, node_id))


def _marks(cursor: duckdb.DuckDBPyConnection, query: str, *parameters: str) -> Iterator[Mark]:
    rows = cursor.execute(query, parameters).fetchall()
    return (Mark(**dict(zip(_MARK_FIELDS, map(_zoned, row), strict=True))) for row in rows)


def read_ledger(cursor: duckdb.DuckDBPyConnection, node_id: str, cached: Sequence[Mark]) -> Ledger:
    """Return the node's ledger.

    ``cached`` marks replace the stored ones, as they alone count the duplicates since then.
    """
    marks = {mark.epoch: mark for mark in read_marks_of(cursor, node_id)}
    marks |= {mark.epoch: mark for mark in cached if mark.epoch in marks}
    rows = cursor.execute(_LOSSES_OF_NODE, [node_id]).fetchall()
    losses = [
        Loss(**dict(zip(_LOSS_FIELDS, map(_zoned, row), strict=True))) for row in reversed(rows)
    ]
    return make_ledger(marks.values(), losses)


def read_latest(
    cursor: duckdb.DuckDBPyConnection, node_id: str, newest: datetime | None
) -> list[StoredPoint]:
    """Return the newest point of each group and peer, for a node whose newest is about ``newest``.

    A scan of all points takes long, so the last minutes are read, then the last day, and all the
    rest only if no group has a point there.
    """
    query = partial(_latest, cursor, node_id)
    found: list[StoredPoint] = []
    others = read_others(cursor, node_id)
    if newest is not None:
        newest = max(newest, _FIRST_TIME + _DAY)
        for group in PAYLOADS:
            found += query(group, newest - _PEER_TIME) or query(group, newest - _DAY)
    found = found or [point for group in PAYLOADS for point in query(group, _FIRST_TIME)]
    return found + others


def read_others(cursor: duckdb.DuckDBPyConnection, node_id: str) -> list[StoredPoint]:
    """Return the newest point of each group that this version does not know, and of each peer."""
    rows = cursor.execute(_NEWEST_OTHERS, [node_id]).fetchall()
    return [
        StoredPoint(
            timestamp=_utc(ts),
            received_at=_utc(received_at),
            group=group,
            peer_id=peer_id,
            data=msgspec.Raw(data.encode()),
        )
        for ts, received_at, group, peer_id, data in rows
    ]


def _latest(
    cursor: duckdb.DuckDBPyConnection, node_id: str, group: str, since: datetime
) -> list[StoredPoint]:
    rows = cursor.execute(latest_query(group), [node_id, since.replace(tzinfo=None)])
    return [_stored(group, *row) for row in rows.fetchall()]


def latest_query(group: str) -> str:
    """Return the query. Parameters: node, since. Columns: ts, received_at, the payload's.

    Only peers measured shortly before the newest point are found; the others are gone.
    """
    key = "PARTITION BY peer_id " if has_peers(group) else ""
    order = "ORDER BY peer_id" if has_peers(group) else ""
    return (
        f"SELECT ts, received_at, {', '.join(data_fields(group))} "  # noqa: S608 -- our own names
        f"FROM {table_of(group)} WHERE node_id = ? AND ts >= ? "
        f"QUALIFY row_number() OVER ({key}ORDER BY ts DESC, received_at DESC) = 1 "
        f"AND ts >= max(ts) OVER () - INTERVAL {PEER_MINUTES} MINUTE {order}"
    )


def read_fleet(
    cursor: duckdb.DuckDBPyConnection, last_seen: Mapping[str, datetime]
) -> list[NodeSummary]:
    """Return a summary of every node.

    ``last_seen`` has the newest arrivals.
    """
    rows = cursor.execute(fleet_query()).fetchall()
    system = {node_id: _stored(GROUP_SYSTEM, *rest) for node_id, *rest in rows}
    arrivals = {node_id: point.received_at for node_id, point in system.items()} | dict(last_seen)
    return [NodeSummary(node, at, system.get(node)) for node, at in sorted(arrivals.items())]


def fleet_query() -> str:
    """Return the query. No parameters. Columns: node_id, ts, received_at, the system payload's."""
    table = table_of(GROUP_SYSTEM)
    return (
        f"SELECT node_id, ts, received_at, {', '.join(data_fields(GROUP_SYSTEM))} FROM {table} "  # noqa: S608 -- our own names
        f"JOIN (SELECT node_id, max(ts) AS ts FROM {table} GROUP BY node_id) USING (node_id, ts) "
        "QUALIFY row_number() OVER (PARTITION BY node_id ORDER BY received_at DESC) = 1"
    )


def read_series(cursor: duckdb.DuckDBPyConnection, query: SeriesQuery) -> Series:
    """Return the buckets of the query's fields."""
    rows = cursor.execute(*series_query(query)).fetchall()
    folds: list[dict[str, list[float | None]]] = [{}, {}, {}]
    for column, field in enumerate(query.fields):
        for fold, values in enumerate(folds):
            values[field] = [row[1 + 3 * column + fold] for row in rows]
    return Series([_utc(row[0]) for row in rows], *folds)


def series_query(query: SeriesQuery) -> tuple[str, list[Any]]:
    """Return the statement and its parameters. Columns: bucket, avg, min and max of each field."""
    if not set(query.fields) <= set(data_fields(query.group)):
        raise ValueError(f"not all of {query.fields} are fields of {query.group}")
    values = [_rate(f) if f in query.rates else _gauge(f) for f in query.fields]
    peer = "AND peer_id = ? " if has_peers(query.group) else ""
    folds = [f"{fold}({field})" for field in query.fields for fold in ("avg", "min", "max")]
    statement = (
        f"WITH readings AS (SELECT ts, {', '.join(values)} FROM {table_of(query.group)} "  # noqa: S608 -- names checked above
        f"WHERE node_id = ? AND ts >= ? AND ts < ? {peer}WINDOW w AS (ORDER BY ts, received_at)) "
        f"SELECT time_bucket(to_microseconds(?), ts) AS bucket, {', '.join(folds)} "
        "FROM readings GROUP BY bucket ORDER BY bucket"
    )
    step = round(query.step.total_seconds() * 1e6)
    window = [query.node_id, query.since.replace(tzinfo=None), query.until.replace(tzinfo=None)]
    return statement, [*window, *([query.peer_id] if peer else []), step]


def _gauge(field: str) -> str:
    """Return the value; none where the wire has -1 for "unknown" or "no answer"."""
    value = f"nullif({field}, -1)" if field in _MINUS_ONE_IS_NONE else field
    return f"{value}::DOUBLE AS {field}"


def _rate(field: str) -> str:
    """Return the change per second since the reading before; none where the counter was reset."""
    passed = "(epoch_us(ts) - epoch_us(lag(ts) OVER w))"
    change = f"({field}::HUGEINT - (lag({field}) OVER w)::HUGEINT)"
    return (
        f"CASE WHEN {change} >= 0 AND {passed} > 0 "
        f"THEN {change}::DOUBLE / {passed} * 1e6 END AS {field}"
    )


def _stored(group: str, ts: datetime, received_at: datetime, *values: Any) -> StoredPoint:
    data: Any = PAYLOADS[group](*map(_zoned, values))
    return StoredPoint(
        timestamp=_utc(ts),
        received_at=_utc(received_at),
        group=group,
        peer_id=getattr(data, "peer_id", ""),
        data=data,
    )


def _zoned(value: Any) -> Any:
    return _utc(value) if isinstance(value, datetime) else value


def _utc(moment: datetime) -> datetime:
    """Return the time with its zone, which the database leaves out."""
    return moment.replace(tzinfo=UTC)
