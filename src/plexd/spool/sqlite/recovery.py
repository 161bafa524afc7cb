"""What became of every point, worked out anew when a spool is opened.

Three witnesses: the account in the database, the mark beside it, and the rows that are there.
"""

from __future__ import annotations

import copy
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.sqlite.meta import Meta

if TYPE_CHECKING:
    from plexd.spool.sqlite.watermark import Watermark

__all__ = ["Reckoning", "Rows", "new_epoch", "reckon"]


class Rows(Struct, frozen=True):
    """What is in the tables: ``points`` in all, and the ``last`` place, 0 without rows."""

    points: int
    last: int


class Reckoning(Struct, frozen=True):
    """The account to go on with, and what there is to say; ``told`` empty: all is as it was left.

    Rows up to the place ``settled`` were settled before, although they are there again.
    """

    account: Meta
    told: str = ""
    settled: int = 0


def new_epoch() -> str:
    """128 random bits: a name under which no batch was ever sealed."""
    return secrets.token_hex(16)


def reckon(account: Meta | None, mark: Watermark | None, rows: Rows) -> Reckoning:
    """Believe the account unless the mark has seen a later one, and count what is missing.

    Whatever casts doubt on which numbers were used begins a new epoch.
    """
    if account is None and mark is None:
        return _without_witness(rows)
    if mark is None:
        found = copy.copy(account or Meta())
        _begin_epoch(found)
        return Reckoning(found, "its mark is damaged or missing")
    if account is None or account.version < mark.version:
        return _from_mark(account, mark, rows)
    return Reckoning(copy.copy(account))


def _begin_epoch(account: Meta) -> None:
    account.epoch, account.seq = new_epoch(), 0


def _without_witness(rows: Rows) -> Reckoning:
    account = Meta(appended=rows.last, acknowledged=rows.last - rows.points)
    _begin_epoch(account)
    told = "its account and its mark are damaged or missing" if rows.last else ""
    return Reckoning(account, told)


def _from_mark(account: Meta | None, mark: Watermark, rows: Rows) -> Reckoning:
    """The database is behind: the points it never heard of are lost, unless they were settled."""
    found = copy.copy(account) if account is not None else Meta(appended=rows.last)
    tail = min(mark.waiting, max(0, mark.appended - found.appended))
    found.damaged += max(0, mark.lost - found.lost) + tail
    found.version = mark.version
    found.appended = max(found.appended, mark.appended)
    found.told = max(found.told, mark.told)
    found.acknowledged = found.appended - found.lost - (mark.waiting - tail)
    _begin_epoch(found)
    return Reckoning(found, "its last changes are missing", mark.front)
