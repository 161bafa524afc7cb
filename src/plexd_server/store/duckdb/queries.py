"""What the embedded store reads from its tables: the SQL text, and the values made of the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plexd.api import GROUP_SYSTEM
from plexd_server.store.duckdb.schema import (
    OTHER,
    TABLES,
    data_fields,
    has_peers,
    table_of,
)
from plexd_server.store.embedded.mark_cache import EPOCHS_IN_MEMORY, KnownMarks, LastReport
from plexd_server.store.marks import LOSSES_IN_LEDGER, Mark
from plexd_server.store.payloads import PAYLOADS
from plexd_server.store.port import Loss, NodeSummary, StoredPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb


PEER_MINUTES: Final = 15  # how long after its last point a peer still counts
_PEER_TIME: Final = timedelta(minutes=PEER_MINUTES)
_DAY: Final = timedelta(days=1)
_STEADY_SECONDS: Final = 5  # as in mesh/judge.py
_STEADY: Final = timedelta(seconds=_STEADY_SECONDS)
_TOGETHER: Final = timedelta(seconds=5)  # in which the pieces of one report arrive
MOST_PEERS: Final = 10_000  # as many as a list of peers may have
_MOST_OTHERS: Final = 1000
_FIRST_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)

_MARK_FIELDS: Final = Mark.__struct_fields__
_LOSS_FIELDS: Final = Loss.__struct_fields__
_VALID_RECEIPTS: Final = (
    f"SELECT {', '.join(_MARK_FIELDS)} FROM receipts WHERE ordinal IN "  # noqa: S608 -- our own names
    "(SELECT max(ordinal) FROM receipts {where} GROUP BY node_id, epoch) ORDER BY ordinal"
)
_ALL_MARKS: Final = _VALID_RECEIPTS.format(where="")
_RANKED: Final = "row_number() OVER (PARTITION BY node_id ORDER BY ordinal DESC)"
_LATEST_MARKS: Final = (
    f"SELECT * FROM ({_ALL_MARKS}) QUALIFY {_RANKED} <= {EPOCHS_IN_MEMORY} ORDER BY ordinal"  # noqa: S608 -- our own names
)
_OTHER_EPOCHS: Final = (
    "SELECT node_id, list(('0x' || md5(? || epoch)[1:16])::UBIGINT) "  # noqa: S608 -- our own names
    f"FROM (SELECT * FROM ({_ALL_MARKS}) QUALIFY {_RANKED} > {EPOCHS_IN_MEMORY}) GROUP BY node_id"
)
_MARKS_OF_NODE: Final = _VALID_RECEIPTS.format(where="WHERE node_id = ?")
_MARK_OF_EPOCH: Final = _VALID_RECEIPTS.format(where="WHERE node_id = ? AND epoch = ?")
_LOSSES_OF_NODE: Final = (
    f"SELECT {', '.join(_LOSS_FIELDS)} FROM losses WHERE node_id = ? "  # noqa: S608 -- our own names
    f"ORDER BY rowid DESC LIMIT {LOSSES_IN_LEDGER}"
)
TOTAL_RECEIVED: Final = f"SELECT coalesce(sum(received), 0)::BIGINT FROM ({_ALL_MARKS})"  # noqa: S608 -- our own names


_stamp = attrgetter("timestamp")


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


def read_known_marks(cursor: duckdb.DuckDBPyConnection, salt: str) -> KnownMarks:
    """Return the latest few marks of each node, and the others shortened with ``salt``."""
    others = cursor.execute(_OTHER_EPOCHS, [salt]).fetchall()
    return KnownMarks([*_marks(cursor, _LATEST_MARKS)], dict(others), salt)


def read_mark(cursor: duckdb.DuckDBPyConnection, node_id: str, epoch: str) -> Mark | None:
    """Return the valid mark of an epoch, if it has one."""
    return next(_marks(cursor, _MARK_OF_EPOCH, node_id, epoch), None)


def read_marks_of(cursor: duckdb.DuckDBPyConnection, node_id: str) -> list[Mark]:
    """Return the valid marks of a node, in order of ``ordinal``."""
    return list(_marks(cursor, _MARKS_OF_NODE, node_id))


def _marks(cursor: duckdb.DuckDBPyConnection, query: str, *parameters: str) -> Iterator[Mark]:
    rows = cursor.execute(query, parameters).fetchall()
    return (Mark(**dict(zip(_MARK_FIELDS, map(_zoned, row), strict=True))) for row in rows)


def read_account(cursor: duckdb.DuckDBPyConnection, node_id: str) -> tuple[list[Mark], list[Loss]]:
    """Return what a node's ledger is made of: its valid marks, and its latest losses in order."""
    rows = cursor.execute(_LOSSES_OF_NODE, [node_id]).fetchall()
    losses = [
        Loss(**dict(zip(_LOSS_FIELDS, map(_zoned, row), strict=True))) for row in reversed(rows)
    ]
    return read_marks_of(cursor, node_id), losses


def read_latest(
    cursor: duckdb.DuckDBPyConnection, node_id: str, last: LastReport | None
) -> list[StoredPoint]:
    """Return the newest point of each group and peer, for a node whose last report is ``last``."""
    points = [] if last is None else _of_last_day(cursor, node_id, last)
    if not points:
        for group in PAYLOADS:
            points += _look(cursor, node_id, arrived_query(group), group, _FIRST_TIME)
    return points + _read_others(cursor, node_id, last)


def _of_last_day(
    cursor: duckdb.DuckDBPyConnection, node_id: str, last: LastReport
) -> list[StoredPoint]:
    points = [point for group in PAYLOADS for point in _newest(cursor, node_id, group, last)]
    newest = max(map(_stamp, points), default=last.arrived)
    oldest = _before(min(newest, last.arrived), _DAY)
    return [point for point in points if point.timestamp >= oldest]


def _newest(
    cursor: duckdb.DuckDBPyConnection, node_id: str, group: str, last: LastReport
) -> list[StoredPoint]:
    """Return the newest points of a group.

    A scan of all points takes long, so the minutes before the newest stamp are read. That is enough
    if it came with the last report; otherwise the order of arrival decides.
    """
    look = partial(_look, cursor, node_id)
    newest = _newest_if_right(last)
    found = look(latest_query(group), group, newest) if newest else []
    if found:
        arrived = max(found, key=_stamp).received_at
        if not last.arrived - _DAY <= arrived < last.arrived - _TOGETHER:
            return found
    query = arrived_query(group)
    found = look(query, group, last.arrived)
    if any(point.timestamp >= _before(last.arrived, _PEER_TIME) for point in found):
        return found
    return look(query, group, last.arrived, _DAY)


def _newest_if_right(last: LastReport) -> datetime | None:
    """Return the newest stamp, unless it may be one of a clock that is, or was, ahead."""
    is_right = last.newest is not None and last.newest <= last.arrived + _STEADY
    return last.newest if is_right else None


def _look(
    cursor: duckdb.DuckDBPyConnection,
    node_id: str,
    query: str,
    group: str,
    moment: datetime,
    before: timedelta = _PEER_TIME,
) -> list[StoredPoint]:
    rows = cursor.execute(query, [node_id, _before(moment, before).replace(tzinfo=None)])
    points = [_stored(group, *row) for row in rows.fetchall()]
    return sorted(points, key=attrgetter("peer_id")) if has_peers(group) else points


def latest_query(group: str) -> str:
    """Return the query for the newest stamps. Parameters: node, since which stamp.

    Columns: ts, received_at, the payload's. Only peers measured shortly before the newest point
    are found; the others are gone.
    """
    names = _names(data_fields(group))
    rows = f"SELECT {names}, rowid AS place FROM {table_of(group)} WHERE node_id = ? AND ts >= ?"  # noqa: S608 -- our own names
    return _newest_of(rows, names, _peer(group)) + _of_recent_peers(group)


def arrived_query(group: str) -> str:
    """Return the query for the newest points of what arrived. Parameters: node, since when.

    Columns, and peers, as of `latest_query`.
    """
    rows = _not_ahead(table_of(group), data_fields(group), "received_at >= ?")
    return _newest_of(rows, _names(data_fields(group)), _peer(group)) + _of_recent_peers(group)


def _not_ahead(table: str, columns: Sequence[str], where: str) -> str:
    """Return the query for a node's rows without those that a later row shows to be ahead.

    The stamp of such a row lies more than five seconds beyond the later one's, and also beyond its
    arrival by the server's clock: the node's clock was set back in between.
    """
    names = _names(columns)
    return (
        f"SELECT {names}, place FROM (SELECT {names}, rowid AS place, "  # noqa: S608 -- our own names
        "min(greatest(ts, received_at)) OVER "
        "(ORDER BY rowid DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bound "
        f"FROM {table} WHERE node_id = ? AND {where}) "
        f"WHERE bound IS NULL OR ts - INTERVAL {_STEADY_SECONDS} SECOND <= bound"
    )


def _newest_of(rows: str, names: str, key: Sequence[str]) -> str:
    """Return the query for the row with the newest stamp of each key; of several, the last."""
    partition = f"PARTITION BY {', '.join(key)}" if key else ""
    return (
        f"SELECT {names} FROM ({rows}) "  # noqa: S608 -- our own names
        f"QUALIFY row_number() OVER ({partition} ORDER BY ts DESC, place DESC) = 1"
    )


def _of_recent_peers(group: str) -> str:
    bound = f"ORDER BY ts DESC, peer_id LIMIT {MOST_PEERS}" if has_peers(group) else ""
    return f" AND ts >= max(ts) OVER () - INTERVAL {PEER_MINUTES} MINUTE {bound}"


def _peer(group: str) -> Sequence[str]:
    return ("peer_id",) if has_peers(group) else ()


def _names(columns: Sequence[str]) -> str:
    return ", ".join(("ts", "received_at", *columns))


# The data of a point may have 16 KiB, so it is read only of the points that are chosen without it.
_OTHER_KEY: Final = ('"group"', "peer_id")
_CHOSEN_OTHERS: Final = _newest_of(
    _not_ahead(table_of(OTHER), _OTHER_KEY, "received_at >= ?"),
    f"{_names(_OTHER_KEY)}, place",
    _OTHER_KEY,
)
_NEWEST_OTHERS: Final = (
    f"SELECT {_names((*_OTHER_KEY, 'data'))} FROM {table_of(OTHER)} WHERE rowid IN "  # noqa: S608 -- our own names
    f'(SELECT place FROM ({_CHOSEN_OTHERS} ORDER BY "group", peer_id LIMIT {_MOST_OTHERS})) '
    'ORDER BY "group", peer_id'
)


def _read_others(
    cursor: duckdb.DuckDBPyConnection, node_id: str, last: LastReport | None
) -> list[StoredPoint]:
    """Return the newest point of each group that this version does not know, and of each peer."""
    since = _FIRST_TIME if last is None else _before(last.arrived, _DAY)
    rows = cursor.execute(_NEWEST_OTHERS, [node_id, since.replace(tzinfo=None)]).fetchall()
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


def read_fleet(
    cursor: duckdb.DuckDBPyConnection, last: Mapping[str, LastReport]
) -> list[NodeSummary]:
    """Return a summary of every node; ``last`` has their last reports."""
    system: dict[str, StoredPoint] = {}
    for node_id, newest, *rest in cursor.execute(fleet_query()).fetchall():
        point = _stored(GROUP_SYSTEM, *rest)
        if _utc(newest) > point.timestamp:
            found = _newest(cursor, node_id, GROUP_SYSTEM, last.get(node_id) or _last_of(point))
            point = next(iter(found), point)
        system[node_id] = point
    arrivals: dict[str, datetime | None] = {
        node_id: report.arrived if report.has_points else None for node_id, report in last.items()
    }
    arrivals |= {
        node: point.received_at for node, point in system.items() if not arrivals.get(node)
    }
    return [NodeSummary(node, at, system.get(node)) for node, at in sorted(arrivals.items())]


def _last_of(point: StoredPoint) -> LastReport:
    return LastReport(point.received_at, None)


def fleet_query() -> str:
    """Return the query for the system point of each node that arrived last.

    No parameters. Columns: node_id, the newest ts of all, ts, received_at, the payload's.
    """
    table = table_of(GROUP_SYSTEM)
    return (
        f"SELECT node_id, newest, ts, received_at, {', '.join(data_fields(GROUP_SYSTEM))} "  # noqa: S608 -- our own names
        f"FROM {table} JOIN (SELECT max(rowid) AS place, max(ts) AS newest FROM {table} "
        f"GROUP BY node_id) ON {table}.rowid = place"
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


def _before(moment: datetime, by: timedelta) -> datetime:
    return moment - min(by, moment - _FIRST_TIME)


def _utc(moment: datetime) -> datetime:
    """Return the time with its zone, which the database leaves out."""
    return moment.replace(tzinfo=UTC)
