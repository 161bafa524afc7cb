"""What became of every point, worked out whenever a spool is opened.

There are three sources: ``meta`` in the database, the watermark beside it, and the rows.
"""

from __future__ import annotations

import copy
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.sqlite.meta import Meta

if TYPE_CHECKING:
    from plexd.spool.sqlite.watermark import Watermark


class Rows(Struct, frozen=True):
    """What is in the tables: ``points`` in all, and the ``last`` place, 0 without rows."""

    points: int
    last: int


class Recovery(Struct, frozen=True):
    """The ``meta`` to continue with; ``loss`` is what went wrong, empty if nothing did.

    Rows up to the place ``front`` were delivered or dropped before, although they are there again.
    """

    meta: Meta
    loss: str = ""
    front: int = 0


def new_epoch() -> str:
    """Return 128 random bits: a name under which no batch was ever sealed."""
    return secrets.token_hex(16)


def recover(meta: Meta | None, watermark: Watermark | None, rows: Rows) -> Recovery:
    """Trust ``meta`` unless the watermark is later, and count what is missing.

    A new epoch begins whenever it is uncertain which numbers were used.
    """
    if meta is None and watermark is None:
        return _from_rows(rows)
    if watermark is None:
        found = copy.copy(meta or Meta())
        _begin_epoch(found)
        return Recovery(found, "its mark is damaged or missing")
    if meta is None or meta.version < watermark.version:
        return _from_watermark(meta, watermark, rows)
    return Recovery(copy.copy(meta))


def _begin_epoch(meta: Meta) -> None:
    meta.epoch, meta.seq = new_epoch(), 0


def _from_rows(rows: Rows) -> Recovery:
    meta = Meta(appended=rows.last, acknowledged=rows.last - rows.points)
    _begin_epoch(meta)
    loss = "its account and its mark are damaged or missing" if rows.last else ""
    return Recovery(meta, loss)


def _from_watermark(meta: Meta | None, watermark: Watermark, rows: Rows) -> Recovery:
    """Count what the database never got as lost, unless it was delivered or dropped before."""
    found = copy.copy(meta) if meta is not None else Meta(appended=rows.last)
    tail = min(watermark.waiting, max(0, watermark.appended - found.appended))
    found.damaged += max(0, watermark.lost - found.lost) + tail
    found.version = watermark.version
    found.appended = max(found.appended, watermark.appended)
    found.told = max(found.told, watermark.told)
    found.acknowledged = found.appended - found.lost - (watermark.waiting - tail)
    _begin_epoch(found)
    return Recovery(found, "its last changes are missing", watermark.front)
