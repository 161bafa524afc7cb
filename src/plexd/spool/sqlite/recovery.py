"""What became of every point, worked out whenever a spool is opened.

There are three sources: ``meta`` in the database, the watermark beside it, and the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.meta import Meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.spool.chain import Chain
    from plexd.spool.rows import Outline
    from plexd.spool.sqlite.watermark import Watermark


class Recovery(Struct, frozen=True):
    """The ``meta`` to continue with; ``loss`` is what went wrong, empty if nothing did.

    Rows up to the number ``front`` were delivered or dropped before, although they are there again.
    The last ``unseen`` points never were in a row.
    """

    meta: Meta
    loss: str = ""
    front: int = 0
    unseen: int = 0


def recover(meta: Meta | None, watermark: Watermark | None, points: int, last: int) -> Recovery:
    """Trust ``meta`` unless the watermark is later, and count what is missing.

    The rows hold so many ``points``; the ``last`` one's number is 0 if there are none.
    """
    if meta is None and watermark is None:
        return _from_rows(points, last)
    if watermark is None:
        return Recovery(meta or Meta(), "its mark is damaged or missing")
    if meta is None or meta.version < watermark.version:
        return _from_watermark(meta, watermark, last)
    return Recovery(meta)


def _from_rows(points: int, last: int) -> Recovery:
    meta = Meta(appended=last, acknowledged=last - points)
    return Recovery(meta, "its account and its mark are damaged or missing" if last else "")


def _from_watermark(meta: Meta | None, watermark: Watermark, last: int) -> Recovery:
    """Count what the database never got as lost, unless it was delivered or dropped before."""
    found = meta.copy() if meta is not None else Meta(appended=last)
    tail = min(watermark.waiting, max(0, watermark.appended - found.appended))
    found.damaged += max(0, watermark.lost - found.lost) + tail
    found.version = watermark.version
    found.appended = max(found.appended, watermark.appended)
    found.acknowledged = found.appended - found.lost - (watermark.waiting - tail)
    return Recovery(found, "its last changes are missing", watermark.front, tail)


def pass_over(chain: Chain, rows: Iterable[Outline]) -> None:
    """Note that these rows, the oldest, have left; nobody knows whether they were delivered.

    They count as delivered: the control plane misses them if they were not.
    """
    for row in rows:
        chain.reach(row.epoch)
        chain.acknowledge(row.place, 0)


def count_points(chain: Chain, rows: Iterable[Outline]) -> tuple[int, int]:
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
