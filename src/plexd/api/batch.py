"""A batch of points: its name, and the JSON that is sent.

The body is the array of the seed's "API Contract". A named batch is part of the delivery
contract (``Plexd-Batch``): ``(epoch, seq)`` always stands for the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, overload

import msgspec
from msgspec import Meta, Struct

from plexd.api.errors import DecodeError, EncodeError
from plexd.api.points import NOT_POINTS, are_plain, check_points, decode_points, in_utc
from plexd.api.wire import MetricPoint

_ENCODER = msgspec.json.Encoder()
_MAX_SEQ = 2**63 - 1
_MAX_POINTS = 2**31 - 1
_NAME = re.compile(
    r"([0-9a-f]{32});seq=([1-9][0-9]{0,18});offset=(0|[1-9][0-9]{0,9});of=([1-9][0-9]{0,9})"
)


class BatchName(Struct, frozen=True, gc=False):
    """``(epoch, seq)`` names a sealed batch for ever; ``offset`` and ``of`` say which part of it.

    ``epoch`` is 32 lower-case hexadecimal digits made with the node's spool, ``seq`` counts from
    1, and a body holds the sealed batch's ``of`` points from index ``offset`` on.
    """

    epoch: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    seq: Annotated[int, Meta(ge=1, le=_MAX_SEQ)]
    offset: Annotated[int, Meta(ge=0, le=_MAX_POINTS)]
    of: Annotated[int, Meta(ge=1, le=_MAX_POINTS)]

    def __str__(self) -> str:
        """Return the value of the ``Plexd-Batch`` header."""
        return f"{self.epoch};seq={self.seq};offset={self.offset};of={self.of}"

    @classmethod
    def parse(cls, text: str) -> BatchName:
        """Return the name that `str` wrote; raise `DecodeError` for any other text.

        An ``offset`` beyond the batch is an error: there is no such piece.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise DecodeError("not of the form <epoch>;seq=<n>;offset=<i>;of=<points>")
        name = cls(found[1], int(found[2]), int(found[3]), int(found[4]))
        if name.seq > _MAX_SEQ or name.of > _MAX_POINTS:
            raise DecodeError("a number is too large")
        if name.offset >= name.of:
            raise DecodeError(f"offset {name.offset} is not within {name.of} points")
        return name


class MetricBatch(Sequence[MetricPoint]):
    """An immutable sequence of points, with the name and the loss that are sent with them.

    The JSON is made once, on first use, and kept: every receiver gets the same bytes.
    """

    __slots__ = ("_dropped", "_json", "_length", "_name", "_points")

    def __init__(
        self, points: Iterable[MetricPoint], *, name: BatchName | None = None, dropped: int = 0
    ) -> None:
        self._points: tuple[MetricPoint, ...] | None = tuple(points)
        self._json: bytes | None = None
        self._length = len(self._points)
        self._name = name
        self._dropped = dropped

    @classmethod
    def of_json(cls, body: bytes, name: BatchName, *, dropped: int = 0) -> MetricBatch:
        """Return the batch of JSON that was made earlier: it is sent as exactly these bytes.

        ``body`` holds ``name.of`` points. They are decoded when one is first used, which raises
        `DecodeError` if they do not follow the contract.
        """
        batch = cls((), name=name, dropped=dropped)
        batch._points, batch._json, batch._length = None, body, name.of
        return batch

    @property
    def name(self) -> BatchName | None:
        """Which sealed batch, and which part of it, this is."""
        return self._name

    @property
    def dropped(self) -> int:
        """Points lost on the node since the last accepted batch."""
        return self._dropped

    def to_json(self) -> bytes:
        """Return the body of a report; raise `EncodeError` for values that JSON has no form for.

        That is NaN, infinities, times without a zone and foreign objects; `check_points` checks
        the rest.
        """
        if self._json is None:
            self._json = _encode(self._read())
        return self._json

    def piece(self, start: int, stop: int, *, dropped: int = 0) -> MetricBatch:
        """Return the points from ``start`` up to ``stop`` as a part of the same sealed batch."""
        name = self._name
        if name is not None:
            name = msgspec.structs.replace(name, offset=name.offset + start)
        return MetricBatch(self._read()[start:stop], name=name, dropped=dropped)

    def _read(self) -> tuple[MetricPoint, ...]:
        if self._points is None:
            self._points = tuple(decode_points(self.to_json()))
        return self._points

    @overload
    def __getitem__(self, index: int) -> MetricPoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MetricPoint]: ...
    def __getitem__(self, index: int | slice) -> MetricPoint | Sequence[MetricPoint]:
        return self._read()[index]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[MetricPoint]:  # Sequence's own asks for each index
        return iter(self._read())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MetricBatch):
            return NotImplemented
        mine = (self._read(), self.name, self.dropped)
        return mine == (other._read(), other.name, other.dropped)

    __hash__ = None  # type: ignore[assignment]  # equality is by value, and points may be Raw

    def __repr__(self) -> str:
        return f"MetricBatch({len(self)} points, name={self.name!s}, dropped={self.dropped})"


def decode_batch(body: bytes) -> MetricBatch:
    """Read a report strictly: known groups, known fields, finite numbers, aware times.

    Times come out in UTC, a point that names another peer than its payload is refused. Raises
    `DecodeError` naming the first offending point and field. ``body`` is trusted to be of bounded
    size; decoding takes memory in proportion to it.
    """
    return MetricBatch(decode_points(body))


def _encode(points: tuple[MetricPoint, ...]) -> bytes:
    try:
        return _encode_plainly(points)
    except NOT_POINTS as err:
        check_points(points)  # raises with the point and the reason
        raise EncodeError(str(err)) from err


def _encode_plainly(points: tuple[MetricPoint, ...]) -> bytes:
    if not are_plain(points):
        check_points(points)
        points = tuple(map(in_utc, points))
    return _ENCODER.encode(points)
