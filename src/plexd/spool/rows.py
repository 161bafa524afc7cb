"""A row of the log, points of one collection under consecutive places, and where rows are kept.

Rows are in the order of their ids: whatever was appended earlier has the lower one.
"""

from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003  # msgspec reads the annotation
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    BatchName,
    MetricBatch,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from plexd.api import MetricPoint
    from plexd.spool.chain import Chain
    from plexd.spool.meta import Meta
    from plexd.spool.port import Refusal

# Receivers that are older than a group refuse a body that holds it.
_SPECIFIED = frozenset({GROUP_SYSTEM, GROUP_TUNNEL, GROUP_LATENCY, GROUP_AGENT})
_RAW = msgspec.json.Decoder(list[msgspec.Raw])


class _Stamped(Struct):
    timestamp: datetime


_STAMPS = msgspec.json.Decoder(list[_Stamped])


def runs_of(points: Iterable[MetricPoint]) -> list[MetricBatch]:
    """Cut a collection wherever the four groups meet others. Raises `EncodeError`."""
    runs = [MetricBatch(run) for _, run in groupby(points, kind_of)]
    for run in runs:
        run.to_json()  # which the batch keeps
    return runs


def kind_of(point: MetricPoint) -> int:
    """Return 0 for a point of the specification's groups, 1 for others."""
    return int(point.group not in _SPECIFIED)


class Row(Struct, frozen=True):
    """One row: the columns of the log in ``docs/spec/spool.md``, but for the digest."""

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
        *fields, body = astuple(self)
        line = ";".join(map(str, fields)) + "\n"
        return hashlib.blake2b(line.encode() + body, digest_size=16, person=b"plexd.row").digest()

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
        points = [bytes(point) for point in _RAW.decode(self.body)[start:stop]]
        return replace(
            self,
            id=self.id - self.points + stop,
            place=self.place - self.points + stop,
            points=len(points),
            body=b"[" + b",".join(points) + b"]",
        )

    def last_points(self, count: int) -> Row:
        """Return the last ``count`` points."""
        return self.part(self.points - count, self.points)

    def newest_within(self, most_bytes: int) -> Row:
        """Return as many of the last points as fit."""
        sizes = accumulate(len(bytes(point)) + 1 for point in reversed(_RAW.decode(self.body)))
        return self.last_points(sum(1 + size <= most_bytes for size in sizes))

    def survivors(self, upto: int, newest: datetime) -> Iterator[Row]:
        """Yield the parts that keep their places after a clash, in order.

        A point does if it is beyond the place ``upto``, or newer than ``newest``.
        """
        stamps = enumerate(_STAMPS.decode(self.body), self.first)
        kept = [place > upto or point.timestamp > newest for place, point in stamps]
        for survives, run in groupby(range(self.points), kept.__getitem__):
            start, *more = run
            if survives:
                yield self.part(start, start + 1 + len(more))


class Outline(NamedTuple):
    """A row without its body, not checked against its digest: numbers may be 0 where damaged."""

    id: int
    epoch: str
    place: int
    points: int
    bytes: int
    stamped: int


class Sizes(Struct):
    """What the rows of a log hold.

    Attributes:
        bytes: bodies and what each takes beside, as `Budget` bounds it.
        points: points that waited in the rows when they were last measured.
        dead_letters: refused batches that are kept.
        front: the number before the oldest row's first point, in the stream of all points.
        oldest_ms: when the oldest row came in; None without rows.
    """

    bytes: int = 0
    points: int = 0
    dead_letters: int = 0
    front: int = 0
    oldest_ms: int | None = None


class Rows(Protocol):
    """Where a log keeps its rows, in order of their ids. Methods raise `SpoolError`.

    ``row_bytes`` is what a row takes beside its body.
    """

    row_bytes: int

    def transaction(self) -> AbstractContextManager[None]:
        """Keep what the body does, or nothing of it."""
        ...

    def write_meta(self, meta: Meta) -> None: ...
    def put(self, row: Row) -> None: ...
    def drop(self, number: int) -> None: ...

    def outlines(self, after: int = -(2**63)) -> Iterator[Outline]:
        """Yield the rows after the id ``after``, oldest first."""
        ...

    def read(self, number: int) -> Row | None:
        """Return the row with this id; None if it is not as it was written."""
        ...

    def measure(self) -> Sizes:
        """Return what the rows hold, but for what is asked of the oldest one."""
        ...

    def add_dead_letter(self, refusal: Refusal) -> int:
        """Keep a batch that was refused, but not too many; return how many are kept."""
        ...

    def dead_letters(self) -> list[Refusal]:
        """Return what was refused, oldest first."""
        ...


def whole_rows(rows: Rows, after: int = -(2**63)) -> Iterator[Row]:
    """Yield the rows after the id ``after``, up to the first that is not as it was written."""
    for outline in rows.outlines(after):
        row = rows.read(outline.id)
        if row is None:
            return
        yield row


def assemble(rows: Iterable[Row], chain: Chain, limit: int) -> MetricBatch | None:
    """Return the first points of ``rows``, at most ``limit``; None if the first row has none left.

    They are of one kind and one epoch, which becomes the head.
    """
    parts: list[Row] = []
    count = 0
    for row in rows:
        if parts and not _continues(parts[-1], row):
            break
        chain.reach(row.epoch)
        start = max(0, chain.passed - row.first + 1)
        if start >= row.points:
            break
        parts.append(row.part(start, min(row.points, start + limit - count)))
        count += parts[-1].points
        if count == limit:
            break
    if not parts:
        return None
    body = b"[" + b",".join(part.body[1:-1] for part in parts) + b"]"
    name = BatchName(chain.sent_as, parts[0].first, count)
    return MetricBatch.of_json(body, name, dropped=chain.dropped, after=chain.predecessor)


def _continues(before: Row, row: Row) -> bool:
    return (row.epoch, row.kind, row.first) == (before.epoch, before.kind, before.place + 1)
