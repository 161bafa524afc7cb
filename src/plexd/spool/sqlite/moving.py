"""From memory to the disk, once it is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from plexd.spool.sqlite.rows import Row

if TYPE_CHECKING:
    from plexd.spool.sqlite.log import PointLog

__all__ = ["move"]

_COUNTS = ("acknowledged", "refused", "evicted", "expired", "damaged", "told")


def move(memory: PointLog, disk: PointLog, epoch: str) -> None:
    """Put every batch of ``memory``, which has nothing else, behind those on the ``disk``.

    They keep their names, ages and order. One transaction; it begins the new ``epoch``, because
    what was left unsealed on the disk is sealed later than these and stands in front of them.
    """
    base = disk.account.appended
    older_by = disk.steady.now_ms() - memory.steady.now_ms()
    with disk.transaction():
        disk.account.appended += memory.account.appended
        for name in _COUNTS:
            disk.account.count(name, getattr(memory.account, name))
        for row in memory.batches():
            stamped = row.stamped + older_by
            disk.put(Row(row.id + base, row.epoch, row.seq, stamped, row.points, row.body))
        for refusal in memory.dead_letters():
            disk.bury(refusal)
        if (handed := memory.handed) is not None:
            disk.handed = msgspec.structs.replace(handed, id=handed.id + base)
            disk.freeze(handed.name, handed.dropped)
        disk.account.epoch, disk.account.seq = epoch, 0
