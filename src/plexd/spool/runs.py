"""Points as they are kept: runs of consecutive places of one kind."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from plexd.api import GROUP_AGENT, GROUP_LATENCY, GROUP_SYSTEM, GROUP_TUNNEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from plexd.api import MetricPoint

# Receivers that are older than a group refuse a body that holds it.
_SPECIFIED: Final = frozenset({GROUP_SYSTEM, GROUP_TUNNEL, GROUP_LATENCY, GROUP_AGENT})


def split_by_kind(points: Iterable[MetricPoint]) -> Iterator[tuple[int, list[MetricPoint]]]:
    """Yield the points in order, cut wherever the specification's four groups meet others.

    The kind is 0 for the four groups and 1 for all others.
    """
    for is_other, run in groupby(points, lambda point: point.group not in _SPECIFIED):
        yield int(is_other), list(run)


def split_by_survival(
    first: int, stamps: Iterable[datetime], upto: int, newest: datetime
) -> Iterator[tuple[bool, int]]:
    """Yield whether points keep their names after a clash, and how many in a row do.

    ``stamps`` are those of the places from ``first`` on. A point survives beyond the place ``upto``
    or if it is newer than ``newest``.
    """
    kept = (place > upto or stamp > newest for place, stamp in enumerate(stamps, first))
    for survives, run in groupby(kept):
        yield survives, sum(1 for _ in run)
