"""What the embedded store reads from its tables: the SQL text, and the values made of the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plexd.api import GROUP_SYSTEM
from plexd_server.store.duckdb.schema import PAYLOADS, TABLES, data_fields, has_peers, table_of
from plexd_server.store.marks import LOSSES_IN_LEDGER, Mark, make_ledger
from plexd_server.store.port import Ledger, Loss, NodeSummary, StoredPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb


PEER_MINUTES: Final = 15  # how long after its last point a peer still counts
_PEER_TIME: Final = timedelta(minutes=PEER_MINUTES)
_DAY: Final = timedelta(days=1)
_FIRST_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)

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
