"""The tables of the embedded store, as SQL text.

One table per group, with columns typed and named as on the wire. Times are UTC without a zone
(DuckDB needs a time zone library to return zoned ones); byte counts are unsigned 64-bit.

    points_<group>(node_id, ts, received_at, peer_id?, <the group's fields>)
    points_other(node_id, ts, received_at, group, peer_id, data)
                                     points of groups that this version does not know; data is JSON
    receipts(<the fields of Mark>)   marks, appended with the points of a report; of each (node,
                                     epoch) only the row with the highest ordinal is valid, and the
                                     superseded ones may be deleted
    losses(node_id, <the fields of Loss>)
    meta(key, value)       schema_version, unaccounted, journal: the number of the journal's last
                           record of which everything is in the tables; and those of `rollups`

Every receipt has running totals, so one sum over the valid ones is the number of points. The
difference is ``meta.unaccounted``, which is 0 or less: the points that were removed since. Code
that removes points subtracts their number from it in the same transaction; a store in which the sum
is wrong has lost receipts or points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd_server.store.marks import Mark
from plexd_server.store.payloads import PAYLOADS
from plexd_server.store.port import Loss

if TYPE_CHECKING:
    from collections.abc import Iterable


SCHEMA_VERSION: Final = 2
WITHOUT_ROLLUPS: Final = 1
RECEIPTS: Final = "receipts"
LOSSES: Final = "losses"
JOURNAL: Final = "journal"
UNACCOUNTED: Final = "unaccounted"

OTHER: Final = "other"
TABLES: Final = (*PAYLOADS, OTHER)
OTHER_TYPES: Final = {"group": "VARCHAR", "peer_id": "VARCHAR", "data": "VARCHAR"}
_COUNTS = (f"(SELECT count(*) FROM points_{group})" for group in TABLES)  # noqa: S608 -- our own names
COUNT_POINTS: Final = f"SELECT {' + '.join(_COUNTS)}"

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
_MAY_BE_NULL = {
    *("last", "newest", "newest_stored", "floor", "complete_until", "received_at", "since"),
}
_LEDGER_TYPES = {
    **dict.fromkeys((*_MAY_BE_NULL, "until", "noticed_at"), "TIMESTAMP"),
    **dict.fromkeys(("node_id", "epoch", "predecessor", "address", "reason", "detail"), "VARCHAR"),
    "is_root": "BOOLEAN",
}


def _ledger_type(name: str) -> str:
    return _LEDGER_TYPES.get(name, "BIGINT")


RECEIPT_TYPES: Final = {name: _ledger_type(name) for name in Mark.__struct_fields__}
LOSS_TYPES: Final = {name: _ledger_type(name) for name in ("node_id", *Loss.__struct_fields__)}


def has_peers(group: str) -> bool:
    """Return whether each point of the group is about a peer."""
    return "peer_id" in PAYLOADS[group].__struct_fields__


def table_of(group: str) -> str:
    """Return the group's table."""
    return f"points_{group}"


def data_fields(group: str) -> tuple[str, ...]:
    """Return the columns of the group's payload, in the order of its constructor."""
    return PAYLOADS[group].__struct_fields__


def column_type(field: str) -> str:
    """Return the type of a payload's column."""
    return _COLUMN_TYPES.get(field, "UBIGINT" if field.endswith("_bytes") else "DOUBLE")


def create_statements() -> Iterable[str]:
    """Yield what an empty database needs."""
    yield "CREATE TABLE meta(key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)"
    values = {"schema_version": SCHEMA_VERSION, UNACCOUNTED: 0, JOURNAL: 0}
    for key, value in values.items():
        yield f"INSERT INTO meta VALUES ('{key}', '{value}')"  # noqa: S608 -- our own names
    for group in TABLES:
        types = OTHER_TYPES if group == OTHER else {f: column_type(f) for f in data_fields(group)}
        columns = [
            "node_id VARCHAR NOT NULL",
            "ts TIMESTAMP NOT NULL",
            "received_at TIMESTAMP NOT NULL",
            *(f'"{name}" {kind} NOT NULL' for name, kind in types.items()),
        ]
        yield f"CREATE TABLE {table_of(group)}({', '.join(columns)})"
    for table, types in ((RECEIPTS, RECEIPT_TYPES), (LOSSES, LOSS_TYPES)):
        yield f"CREATE TABLE {table}({', '.join(map(_ledger_column, types, types.values()))})"


def _ledger_column(name: str, kind: str) -> str:
    return f"{name} {kind}" if name in _MAY_BE_NULL else f"{name} {kind} NOT NULL"
