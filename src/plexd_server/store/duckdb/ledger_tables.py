"""The tables of what came and of what is missing, and their questions, as SQL text.

    receipts(<the fields of Mark>)   appended with the points of a report; per (node, epoch) the
                                     one with the highest ordinal holds, the others may be deleted
    losses(node_id, reason, since, until, noticed_at, points, batches)

As every receipt carries running totals, one sum over those that hold says how many points there
are. ``meta.unaccounted`` is the difference: points from before there were receipts, less those
that were removed since. Whoever removes points takes their number off it in the same
transaction; a store in which the sum is not right has lost receipts or points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import astuple

from plexd_server.store.marks import Mark, refused_openly
from plexd_server.store.port import Ledger, Loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ALL_THAT_HOLD",
    "LOSSES",
    "LOSSES_OF_NODE",
    "LOSS_TYPES",
    "MARKS_OF_NODE",
    "MARK_OF_EPOCH",
    "RECEIPTS",
    "RECEIPT_TYPES",
    "REMOVE_LOSSES",
    "REMOVE_SUPERSEDED",
    "TAKE_OFF_UNACCOUNTED",
    "TOTAL_RECEIVED",
    "UNACCOUNTED",
    "create_statements",
    "loss_of",
    "loss_row",
    "make_ledger",
]

RECEIPTS: Final = "receipts"
LOSSES: Final = "losses"
UNACCOUNTED: Final = "unaccounted"

_LOSSES_SHOWN = 100
_TIMES = {"newest", "complete_until", "received_at", "since", "until", "noticed_at"}
_MAY_BE_NULL = {"newest", "complete_until", "received_at", "since"}
_TEXTS = {"node_id", "epoch", "reason"}
_FIELDS = Mark.__struct_fields__
_LOSS_FIELDS = Loss.__struct_fields__


def _type(name: str) -> str:
    if name in _TIMES:
        return "TIMESTAMP"
    return "VARCHAR" if name in _TEXTS else "BIGINT"


RECEIPT_TYPES: Final = {name: _type(name) for name in _FIELDS}
LOSS_TYPES: Final = {name: _type(name) for name in ("node_id", *_LOSS_FIELDS)}

_COLUMNS = ", ".join(_FIELDS)
_HOLDING = (
    "SELECT {columns} FROM receipts WHERE ordinal IN "
    "(SELECT max(ordinal) FROM receipts {where} GROUP BY node_id, epoch) ORDER BY ordinal"
)
ALL_THAT_HOLD: Final = _HOLDING.format(columns=_COLUMNS, where="")
MARKS_OF_NODE: Final = _HOLDING.format(columns=_COLUMNS, where="WHERE node_id = ? AND epoch <> ''")
MARK_OF_EPOCH: Final = _HOLDING.format(columns=_COLUMNS, where="WHERE node_id = ? AND epoch = ?")
TOTAL_RECEIVED: Final = f"SELECT coalesce(sum(received), 0)::BIGINT FROM ({ALL_THAT_HOLD})"  # noqa: S608 -- our own names
REMOVE_SUPERSEDED: Final = (
    "DELETE FROM receipts WHERE ordinal NOT IN "
    "(SELECT max(ordinal) FROM receipts GROUP BY node_id, epoch)"
)
REMOVE_LOSSES: Final = "DELETE FROM losses WHERE noticed_at < ?"
TAKE_OFF_UNACCOUNTED: Final = (
    "UPDATE meta SET value = (value::BIGINT - ?)::VARCHAR WHERE key = 'unaccounted'"
)
LOSSES_OF_NODE: Final = (
    f"SELECT {', '.join(_LOSS_FIELDS)} FROM losses WHERE node_id = ? "  # noqa: S608 -- our own names
    f"ORDER BY rowid DESC LIMIT {_LOSSES_SHOWN}"
)


def create_statements() -> Iterable[str]:
    """What a database without receipts needs."""
    for table, types in ((RECEIPTS, RECEIPT_TYPES), (LOSSES, LOSS_TYPES)):
        yield f"CREATE TABLE {table}({', '.join(map(_column, types, types.values()))})"


def _column(name: str, kind: str) -> str:
    return f"{name} {kind}" if name in _MAY_BE_NULL else f"{name} {kind} NOT NULL"


def loss_row(node_id: str, loss: Loss) -> tuple[Any, ...]:
    """A loss as a row of its table."""
    return (node_id, *astuple(loss))


def loss_of(row: Iterable[Any]) -> Loss:
    """What `LOSSES_OF_NODE` found, its times made aware."""
    return Loss(**dict(zip(_LOSS_FIELDS, row, strict=True)))


def make_ledger(marks: Sequence[Mark], losses: Sequence[Loss]) -> Ledger:
    """The sum of a node's epochs, of which the last one says where the node is."""
    if not marks:
        return Ledger()
    opened = [loss for mark in marks if (loss := _open_loss(mark))]
    return Ledger(
        complete_until=marks[-1].complete_until,
        received=sum(mark.received for mark in marks),
        duplicates=sum(mark.duplicates for mark in marks),
        evicted=sum(mark.evicted for mark in marks),
        rejected=sum(mark.rejected + refused_openly(mark) for mark in marks),
        gap_batches=sum(mark.gap_batches for mark in marks),
        losses=[*losses, *opened][-_LOSSES_SHOWN:],
    )


def _open_loss(mark: Mark) -> Loss | None:
    """What was refused since the last batch, until that one's successor settles it."""
    points = refused_openly(mark)
    if not points or mark.received_at is None:
        return None
    return Loss(
        reason="rejected",
        since=mark.newest,
        until=mark.received_at,
        noticed_at=mark.received_at,
        points=points,
        batches=int(mark.refused_seq > mark.seq),
    )
