"""The embedded store's tables and questions, as SQL text.

One table per group, columns typed and named as on the wire. Times are UTC without a zone (DuckDB
would need a time zone library to hand out zoned ones); byte counts are unsigned 64-bit.

    points_<group>(node_id, ts, received_at, peer_id?, <the group's fields>)
    receipts, losses       see ledger_tables.py
    meta(key, value)       schema_version, unaccounted (see ledger_tables.py), journal: the number
                           of the journal's last record of which all is in the tables

Version 1 had no receipts, version 2 no journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    SystemStats,
    TunnelStats,
)
from plexd_server.store.duckdb import ledger_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

    from plexd_server.store.port import SeriesQuery

__all__ = [
    "COUNT_POINTS",
    "JOURNAL",
    "NEWEST_POINT",
    "OLDEST_POINT",
    "PAYLOADS",
    "PEER_MINUTES",
    "REMOVE_POINTS",
    "SCHEMA_VERSION",
    "column_type",
    "create_statements",
    "data_fields",
    "fleet_query",
    "has_peers",
    "latest_query",
    "series_query",
    "table_of",
    "upgrade_statements",
]

SCHEMA_VERSION: Final = 3
JOURNAL: Final = "journal"
PEER_MINUTES: Final = 15  # how long after its last point a peer still counts

PAYLOADS: Final[dict[str, type[msgspec.Struct]]] = {
    GROUP_SYSTEM: SystemStats,
    GROUP_TUNNEL: TunnelStats,
    GROUP_LATENCY: LatencyResult,
    GROUP_AGENT: AgentStats,
}
_COUNTS = (f"(SELECT count(*) FROM points_{group})" for group in PAYLOADS)  # noqa: S608 -- our own names
COUNT_POINTS: Final = f"SELECT {' + '.join(_COUNTS)}"
REMOVE_POINTS: Final = [f"DELETE FROM points_{group} WHERE ts < ?" for group in PAYLOADS]  # noqa: S608 -- our own names


def _extreme(fold: str) -> str:
    times = " UNION ALL ".join(f"SELECT {fold}(ts) AS ts FROM points_{group}" for group in PAYLOADS)  # noqa: S608 -- our own names
    return f"SELECT {fold}(ts) FROM ({times})"  # noqa: S608 -- our own names


OLDEST_POINT: Final = _extreme("min")
NEWEST_POINT: Final = _extreme("max")
_COLUMN_TYPES: dict[str, str] = {
    "peer_id": "VARCHAR",
    "last_handshake_time": "TIMESTAMP",
    "handshake_succeeded": "BOOLEAN",
    "handshake_stale": "BOOLEAN",
    "rtt_nano": "BIGINT",
    "goroutine_count": "BIGINT",
    "reconnect_count": "BIGINT",
    "gc_num_gc": "UINTEGER",
    "gc_pause_total_ns": "UBIGINT",
}
_MINUS_ONE_IS_NONE = frozenset({"rtt_nano", "packet_loss_percent"})


def has_peers(group: str) -> bool:
    """Whether the group's points are about a peer each."""
    return "peer_id" in PAYLOADS[group].__struct_fields__


def table_of(group: str) -> str:
    """The group's table."""
    return f"points_{group}"


def data_fields(group: str) -> tuple[str, ...]:
    """The columns of the group's payload, in the order of its constructor."""
    return PAYLOADS[group].__struct_fields__


def create_statements() -> Iterable[str]:
    """What an empty database needs."""
    yield "CREATE TABLE meta(key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)"
    yield "INSERT INTO meta VALUES ('schema_version', '1')"
    for group in PAYLOADS:
        columns = [
            "node_id VARCHAR NOT NULL",
            "ts TIMESTAMP NOT NULL",
            "received_at TIMESTAMP NOT NULL",
            *(f"{name} {column_type(name)} NOT NULL" for name in data_fields(group)),
        ]
        yield f"CREATE TABLE {table_of(group)}({', '.join(columns)})"
    yield from upgrade_statements(1)


def upgrade_statements(version: int) -> Iterable[str]:
    """What makes a database of an earlier version one of this version."""
    if version < 2:
        yield from ledger_tables.create_statements()
        yield f"INSERT INTO meta SELECT '{ledger_tables.UNACCOUNTED}', ({COUNT_POINTS})::VARCHAR"
    yield f"INSERT INTO meta VALUES ('{JOURNAL}', '0')"  # noqa: S608 -- our own name
    yield f"UPDATE meta SET value = '{SCHEMA_VERSION}' WHERE key = 'schema_version'"  # noqa: S608 -- a number


def latest_query(group: str) -> str:
    """Parameters: the node, and since when. Columns: ts, received_at, then the payload's.

    Of peers only those that were measured shortly before the newest: the others are gone.
    """
    key = "PARTITION BY peer_id " if has_peers(group) else ""
    order = "ORDER BY peer_id" if has_peers(group) else ""
    return (
        f"SELECT ts, received_at, {', '.join(data_fields(group))} "  # noqa: S608 -- our own names
        f"FROM {table_of(group)} WHERE node_id = ? AND ts >= ? "
        f"QUALIFY row_number() OVER ({key}ORDER BY ts DESC, received_at DESC) = 1 "
        f"AND ts >= max(ts) OVER () - INTERVAL {PEER_MINUTES} MINUTE {order}"
    )


def fleet_query() -> str:
    """No parameters. Columns: node_id, ts, received_at, system payload."""
    table = table_of(GROUP_SYSTEM)
    return (
        f"SELECT node_id, ts, received_at, {', '.join(data_fields(GROUP_SYSTEM))} FROM {table} "  # noqa: S608 -- our own names
        f"JOIN (SELECT node_id, max(ts) AS ts FROM {table} GROUP BY node_id) USING (node_id, ts) "
        "QUALIFY row_number() OVER (PARTITION BY node_id ORDER BY received_at DESC) = 1"
    )


def series_query(query: SeriesQuery) -> tuple[str, list[Any]]:
    """The statement and its parameters. Columns: bucket, then avg, min and max of each field."""
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
    """The value; none where the wire says "unknown" or "no answer" with -1."""
    value = f"nullif({field}, -1)" if field in _MINUS_ONE_IS_NONE else field
    return f"{value}::DOUBLE AS {field}"


def _rate(field: str) -> str:
    """Change per second since the reading before; none where the counter went back."""
    passed = "(epoch_us(ts) - epoch_us(lag(ts) OVER w))"
    change = f"({field}::HUGEINT - (lag({field}) OVER w)::HUGEINT)"
    return (
        f"CASE WHEN {change} >= 0 AND {passed} > 0 "
        f"THEN {change}::DOUBLE / {passed} * 1e6 END AS {field}"
    )


def column_type(field: str) -> str:
    """The type of a payload's column."""
    return _COLUMN_TYPES.get(field, "UBIGINT" if field.endswith("_bytes") else "DOUBLE")
