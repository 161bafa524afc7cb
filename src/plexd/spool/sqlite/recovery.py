"""What became of every point, worked out whenever a spool is opened.

There are three sources: ``meta`` in the database, the watermark beside it, and the rows.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.meta import Meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.spool.chain import Chain
    from plexd.spool.rows import Outline
    from plexd.spool.sqlite.tables import SpoolTables
    from plexd.spool.sqlite.watermark import Watermark


class _Account(Struct, frozen=True):
    """The ``meta`` to continue with; ``loss`` is what went wrong, empty if nothing did.

    Rows up to the number ``front`` were delivered or dropped before, although they are there again.
    The last ``unseen`` points never were in a row.
    """

    meta: Meta
    loss: str = ""
    front: int = 0
    unseen: int = 0


def recover(tables: SpoolTables, watermark: Watermark | None) -> tuple[Meta, str]:
    """Return the ``meta`` to continue with, and what went wrong; empty if nothing did.

    Drops the rows that had left. Raises `DiskError` and `DamagedError`.
    """
    account = _account(tables, watermark)
    meta, loss = account.meta, account.loss
    if account.front:
        _drop_passed(tables, meta.chain, account.front)
    waiting, missing = _count_points(meta.chain, tables.outlines())
    meta.chain.lose(account.unseen)
    if waiting < meta.waiting:
        loss = loss or "rows are missing"
        meta.chain.lose(max(0, meta.waiting - waiting - missing))
        meta.damaged += meta.waiting - waiting
    return meta, loss


def _account(tables: SpoolTables, watermark: Watermark | None) -> _Account:
    """Trust ``meta`` unless the watermark is later."""
    meta = tables.read_meta()
    if watermark is None:
        return _without_watermark(meta, tables)
    if meta is None or meta.version < watermark.version:
        return _from_watermark(meta or Meta(appended=tables.last_id()), watermark)
    return _Account(meta)


def _without_watermark(meta: Meta | None, tables: SpoolTables) -> _Account:
    if meta is not None:
        return _Account(meta, "its mark is damaged or missing")
    last, points = tables.last_id(), tables.measure().points
    loss = "its account and its mark are damaged or missing" if last else ""
    return _Account(Meta(appended=last, acknowledged=last - points), loss)


def _from_watermark(found: Meta, watermark: Watermark) -> _Account:
    """Count what the database never got as lost, unless it was delivered or dropped before."""
    tail = min(watermark.waiting, max(0, watermark.appended - found.appended))
    found.damaged += max(0, watermark.lost - found.lost) + tail
    found.version = watermark.version
    found.appended = max(found.appended, watermark.appended)
    found.acknowledged = found.appended - found.lost - (watermark.waiting - tail)
    return _Account(found, "its last changes are missing", watermark.front, tail)


def _drop_passed(tables: SpoolTables, chain: Chain, front: int) -> None:
    """Drop the rows up to the number ``front``; nobody knows whether they were delivered.

    They count as delivered: the control plane misses them if they were not.
    """
    with tables.transaction():
        for row in itertools.takewhile(lambda row: row.id <= front, tables.outlines()):
            chain.reach(row.epoch)
            chain.acknowledge(row.place, 0)
            tables.drop(row.id)


def _count_points(chain: Chain, rows: Iterable[Outline]) -> tuple[int, int]:
    """Return how many points wait in ``rows``, and how many are missing between them.

    What is missing between the points of one epoch, the control plane sees by itself.
    """
    waiting = missing = 0
    epoch, last = chain.head, chain.passed
    for row in rows:
        if row.epoch != epoch:
            epoch, last = row.epoch, 0
        missing += max(0, row.place - row.points - last)
        waiting += max(0, min(row.points, row.place - last))
        last = row.place
    return waiting, missing
