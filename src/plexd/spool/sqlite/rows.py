"""A row of the log: points of one collection under consecutive places, and batches made of rows.

``id`` is the number of the row's last point in the stream of all points, counted from 1. So a row
holds the points from ``id - points`` on, and whatever was appended earlier has the lower id.
"""

from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003  # msgspec reads the annotation
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec import Struct

from plexd.api import BatchName
from plexd.spool.runs import split_by_survival

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_POINTS = 2**31 - 1
_RAW = msgspec.json.Decoder(list[msgspec.Raw])


class _Stamped(Struct):
    timestamp: datetime


class Row(Struct, frozen=True):
    """One row.

    Attributes:
        id: its last point in the stream of all points.
        epoch: the epoch in which its points were named.
        place: its last point's place.
        stamped: when the points came in, by the spool's own clock in milliseconds.
        kind: 0 for the specification's four groups, 1 for others.
        points: how many there are.
        body: the points as a JSON array.
    """

    id: int
    epoch: str
    place: int
    stamped: int
    kind: int
    points: int
    body: bytes

    @property
    def first(self) -> int:
        """The place of its first point."""
        return self.place - self.points + 1

    def digest(self) -> bytes:
        """Return BLAKE2b over the fields before the body, as a line of text, and the body."""
        fields = (self.id, self.epoch, self.place, self.stamped, self.kind, self.points)
        line = ";".join(map(str, fields)) + "\n"
        state = hashlib.blake2b(line.encode(), digest_size=16, person=b"plexd.row")
        state.update(self.body)
        return state.digest()

    @classmethod
    def checked(cls, values: Sequence[Any], digest: object) -> Self | None:
        """Return the row with these values, unless they are not the ones that were written."""
        *_, body = values
        if not isinstance(body, bytes):
            return None
        row = cls(*values)
        return row if row.digest() == digest else None

    def part(self, start: int, stop: int) -> Row:
        """Return the points from index ``start`` up to ``stop``; their bytes stay as they are."""
        if (start, stop) == (0, self.points):
            return self
        behind = self.points - stop
        points = [bytes(point) for point in _RAW.decode(self.body)[start:stop]]
        body = b"[" + b",".join(points) + b"]"
        names = (self.id - behind, self.epoch, self.place - behind, self.stamped, self.kind)
        return Row(*names, len(points), body)

    def newest_within(self, most_bytes: int) -> Row | None:
        """Return as many of the last points as fit; None if not even the last one does."""
        size, count = 2, 0
        for point in reversed(_RAW.decode(self.body)):
            size += len(bytes(point)) + 1
            if size > most_bytes:
                break
            count += 1
        return self.part(self.points - count, self.points) if count else None

    def survivors(self, upto: int, newest: datetime) -> Iterator[Row]:
        """Yield the parts that keep their places after a clash, in order."""
        if self.first > upto:
            yield self
            return
        stamps = [point.timestamp for point in msgspec.json.decode(self.body, type=list[_Stamped])]
        start = 0
        for survives, count in split_by_survival(self.first, stamps, upto, newest):
            if survives:
                yield self.part(start, start + count)
            start += count


def assemble(
    rows: Iterable[Row], passed: int, limit: int, sent_as: str
) -> tuple[bytes, BatchName] | None:
    """Return body and name of the first points beyond the place ``passed``, at most ``limit``.

    They have consecutive places of one epoch and are of one kind. None if there are no rows.
    """
    parts: list[Row] = []
    count = 0
    for row in rows:
        if parts and not _continues(parts[-1], row):
            break
        start = max(0, passed - row.first + 1)
        if start >= row.points:
            continue
        parts.append(row.part(start, min(row.points, start + limit - count)))
        count += parts[-1].points
        if count >= limit:
            break
    if not parts:
        return None
    body = b"[" + b",".join(part.body[1:-1] for part in parts) + b"]"
    return body, BatchName(sent_as, parts[0].first, count)


def _continues(before: Row, row: Row) -> bool:
    return (row.epoch, row.kind, row.first) == (before.epoch, before.kind, before.place + 1)
