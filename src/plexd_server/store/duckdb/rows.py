"""Table rows from values, and values from table rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from plexd.api import GROUP_SYSTEM
from plexd_server.store.duckdb import ledger_tables, schema
from plexd_server.store.marks import Mark
from plexd_server.store.port import Ledger, NodeSummary, StoredPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

__all__ = [
    "read_fleet",
    "read_latest",
    "read_ledger",
    "read_marks",
    "read_meta",
    "read_moment",
    "read_one",
    "utc",
]


_SHORTLY: Final = timedelta(minutes=schema.PEER_MINUTES)
_DAY: Final = timedelta(days=1)
_EVER: Final = datetime(1, 1, 1, tzinfo=UTC)


def read_marks(
    cursor: duckdb.DuckDBPyConnection, question: str, *parameters: str
) -> Iterator[Mark]:
    """The marks that one of the questions in ledger_tables.py finds."""
    rows = cursor.execute(question, parameters).fetchall()
    return (Mark(**dict(zip(Mark.__struct_fields__, map(zoned, row), strict=True))) for row in rows)


def read_meta(connection: duckdb.DuckDBPyConnection, key: str) -> int | None:
    """A number of the table ``meta``; None if it is not there."""
    value = read_one(connection, "SELECT value FROM meta WHERE key = ?", key)
    return None if value is None else int(value)


def read_moment(connection: duckdb.DuckDBPyConnection, question: str) -> datetime | None:
    """The one time that the question finds, if any."""
    found = read_one(connection, question)
    return None if found is None else utc(found)


def read_one(connection: duckdb.DuckDBPyConnection, question: str, *parameters: Any) -> Any:
    """The one value that the question finds, if any.

    Read to its end: an answer that is not keeps a transaction open, and that every checkpoint out.
    """
    rows = connection.execute(question, parameters).fetchall()
    return rows[0][0] if rows else None


def read_ledger(
    cursor: duckdb.DuckDBPyConnection, node_id: str, in_memory: Sequence[Mark]
) -> Ledger:
    """Of what is kept; duplicates are counted in memory until the next receipt."""
    marks = {m.epoch: m for m in read_marks(cursor, ledger_tables.MARKS_OF_NODE, node_id)}
    marks |= {m.epoch: m for m in in_memory if m.epoch in marks}
    rows = cursor.execute(ledger_tables.LOSSES_OF_NODE, [node_id]).fetchall()
    losses = [ledger_tables.loss_of(map(zoned, row)) for row in reversed(rows)]
    return ledger_tables.make_ledger(list(marks.values()), losses)


def read_latest(
    cursor: duckdb.DuckDBPyConnection, node_id: str, newest: datetime | None
) -> list[StoredPoint]:
    """The newest point of each group and peer, of a node whose newest is about ``newest``.

    Looked for in the last minutes, then in the last day, as a scan of all takes long; further back
    only if that finds nothing at all.
    """
    question = partial(_latest_of, cursor, node_id)
    found: list[StoredPoint] = []
    if newest is not None:
        newest = max(newest, _EVER + _DAY)
        for group in schema.PAYLOADS:
            found += question(group, newest - _SHORTLY) or question(group, newest - _DAY)
    return found or [point for group in schema.PAYLOADS for point in question(group, _EVER)]


def _latest_of(
    cursor: duckdb.DuckDBPyConnection, node_id: str, group: str, since: datetime
) -> list[StoredPoint]:
    rows = cursor.execute(schema.latest_query(group), [node_id, since.replace(tzinfo=None)])
    return [_stored(group, *row) for row in rows.fetchall()]


def _stored(group: str, ts: datetime, received_at: datetime, *values: Any) -> StoredPoint:
    data: Any = schema.PAYLOADS[group](*map(zoned, values))
    return StoredPoint(
        timestamp=utc(ts),
        received_at=utc(received_at),
        group=group,
        peer_id=getattr(data, "peer_id", ""),
        data=data,
    )


def read_fleet(
    cursor: duckdb.DuckDBPyConnection, seen: Mapping[str, datetime]
) -> list[NodeSummary]:
    """A summary of every node; ``seen`` has newest arrivals, but for those before version 2."""
    rows = cursor.execute(schema.fleet_query()).fetchall()
    system = {node_id: _stored(GROUP_SYSTEM, *rest) for node_id, *rest in rows}
    arrivals = {node_id: point.received_at for node_id, point in system.items()} | dict(seen)
    return [NodeSummary(node, at, system.get(node)) for node, at in sorted(arrivals.items())]


def zoned(value: Any) -> Any:
    """A column's value as the rest of the server has it: times know that they are UTC."""
    return utc(value) if isinstance(value, datetime) else value


def utc(moment: datetime) -> datetime:
    """The database's times are UTC without saying so."""
    return moment.replace(tzinfo=UTC)
