"""Whether the counts of a spool fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.spool import SpoolStatistics

__all__ = ["balanced"]


def balanced(found: SpoolStatistics) -> SpoolStatistics:
    """``found``, whose points are counted once each and whose rows hold the waiting ones."""
    assert found.appended == found.waiting + found.acknowledged + found.lost, found
    assert found.waiting >= 0, found
    # What waits is computed from the other counts; only the rows are counted by themselves.
    assert found.waiting or not found.stored_bytes, found
    return found
