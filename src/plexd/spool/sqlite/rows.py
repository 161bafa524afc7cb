"""A row of the queue: a collection as it came in, or a sealed batch; and cutting one into others.

``id`` is a place in the stream of all points: of the row's last point, counted from 1. So a row
holds the points from ``id - points`` on, and whatever was appended earlier has the lower id.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_POINTS = 2**31 - 1
_RAW = msgspec.json.Decoder(list[msgspec.Raw])


class Row(Struct, frozen=True):
    """One row; ``epoch`` is empty and ``seq`` 0 for points that are not sealed yet.

    ``stamped`` is when the oldest of its points came in, by the spool's own clock in
    milliseconds; ``body`` is the JSON array that is sent.
    """

    id: int
    epoch: str
    seq: int
    stamped: int
    points: int
    body: bytes

    def digest(self) -> bytes:
        """Return BLAKE2b over the fields before the body, as a line of text, and the body."""
        line = f"{self.id};{self.epoch};{self.seq};{self.stamped};{self.points}\n"
        state = hashlib.blake2b(line.encode(), digest_size=16, person=b"plexd.row")
        state.update(self.body)
        return state.digest()

    @classmethod
    def checked(cls, values: Sequence[Any], digest: object) -> Row | None:
        """Return the row with these values, unless they are not the ones that were written."""
        *_, body = values
        if not isinstance(body, bytes):
            return None
        row = cls(*values)
        return row if row.digest() == digest else None


def cut(rows: Sequence[Row], limit: int, epoch: str, seq: int) -> Iterator[Row]:
    """Yield collections as batches of at most ``limit`` points, numbered from ``seq`` on.

    The bytes of a point stay as they are.
    """
    points: list[bytes] = []
    first = rows[0]
    for row in rows:
        for place, point in enumerate(_RAW.decode(row.body), row.id - row.points + 1):
            if not points:
                first = row
            points.append(bytes(point))
            if len(points) == limit:
                yield _batch(place, epoch, seq, first.stamped, points)
                points, seq = [], seq + 1
    if points:
        yield _batch(rows[-1].id, epoch, seq, first.stamped, points)


def _batch(place: int, epoch: str, seq: int, stamped: int, points: list[bytes]) -> Row:
    return Row(place, epoch, seq, stamped, len(points), b"[" + b",".join(points) + b"]")


def newest(body: bytes, most_bytes: int) -> tuple[int, bytes]:
    """Return as many of the last points of ``body`` as fit: their number and their JSON."""
    kept: list[bytes] = []
    size = 2
    for point in reversed(_RAW.decode(body)):
        size += len(bytes(point)) + 1
        if size > most_bytes:
            break
        kept.append(bytes(point))
    return len(kept), b"[" + b",".join(reversed(kept)) + b"]"
