"""Table rows from values, and values from table rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plexd.api import GROUP_SYSTEM
from plexd_server.store import receipts, schema
from plexd_server.store.marks import Mark
from plexd_server.store.port import Ledger, NodeSummary, StoredPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

__all__ = [
    "read_latest",
    "read_ledger",
    "read_marks",
    "read_meta",
    "read_moment",
    "read_one",
    "summary_of",
    "utc",
]


def read_marks(
    cursor: duckdb.DuckDBPyConnection, question: str, *parameters: str
) -> Iterator[Mark]:
    """The marks that one of the questions in receipts.py finds."""
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
    marks = {m.epoch: m for m in read_marks(cursor, receipts.MARKS_OF_NODE, node_id)}
    marks |= {m.epoch: m for m in in_memory if m.epoch in marks}
    rows = cursor.execute(receipts.LOSSES_OF_NODE, [node_id]).fetchall()
    losses = [receipts.loss_of(map(zoned, row)) for row in reversed(rows)]
    return receipts.make_ledger(list(marks.values()), losses)


def read_latest(cursor: duckdb.DuckDBPyConnection, node_id: str) -> Iterable[StoredPoint]:
    """The newest point of each group and peer."""
    for group in schema.PAYLOADS:
        for row in cursor.execute(schema.latest_query(group), [node_id]).fetchall():
            yield _stored(group, *row)


def _stored(group: str, ts: datetime, received_at: datetime, *values: Any) -> StoredPoint:
    data: Any = schema.PAYLOADS[group](*map(zoned, values))
    return StoredPoint(
        timestamp=utc(ts),
        received_at=utc(received_at),
        group=group,
        peer_id=getattr(data, "peer_id", ""),
        data=data,
    )


def summary_of(node_id: str, seen: datetime, ts: datetime | None, *rest: Any) -> NodeSummary:
    """A row of `schema.fleet_query`."""
    system = None if ts is None else _stored(GROUP_SYSTEM, ts, *rest)
    return NodeSummary(node_id, utc(seen), system)


def zoned(value: Any) -> Any:
    """A column's value as the rest of the server has it: times know that they are UTC."""
    return utc(value) if isinstance(value, datetime) else value


def utc(moment: datetime) -> datetime:
    """The database's times are UTC without saying so."""
    return moment.replace(tzinfo=UTC)
