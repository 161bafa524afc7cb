"""A batch of points: its name, and the JSON that is sent.

The body is the array of the seed's "API Contract". The name and the predecessor are part of the
delivery contract (``docs/spec/delivery.md``): a point is named ``(epoch, place)`` when it is
appended to a spool, and a batch is any run of consecutive places.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self, overload

import msgspec
from msgspec import Meta, Struct

from plexd.api.decoding import decode_points, decoding_points
from plexd.api.errors import DecodeError, EncodeError
from plexd.api.points import NOT_POINTS, are_plain, check_points, in_utc
from plexd.api.wire import MetricPoint
from plexd.steps import finish

_ENCODER = msgspec.json.Encoder()
_MAX_PLACE = 2**63 - 1
_MAX_POINTS = 2**31 - 1
_EPOCH = "[0-9a-f]{32}"
_NAME = re.compile(rf"({_EPOCH});first=([1-9][0-9]{{0,18}});points=([1-9][0-9]{{0,9}})")
_AFTER = re.compile(rf"(?:none|({_EPOCH}):(0|[1-9][0-9]{{0,18}}));skipped=(0|[1-9][0-9]{{0,18}})")
_START = datetime(1970, 1, 1, tzinfo=UTC)


class BatchName(Struct, frozen=True, gc=False):
    """The ``points`` consecutive places of ``epoch`` from ``first`` on.

    ``epoch`` is 32 lower-case hexadecimal digits, made for one life of a process. Places count
    from 1 in the order in which points were appended, and are never used again.
    """

    epoch: Annotated[str, Meta(pattern=f"^{_EPOCH}$")]
    first: Annotated[int, Meta(ge=1, le=_MAX_PLACE)]
    points: Annotated[int, Meta(ge=1, le=_MAX_POINTS)]

    @property
    def last(self) -> int:
        """The place of the last point."""
        return self.first + self.points - 1

    def __str__(self) -> str:
        """Return the value of the ``Plexd-Batch`` header."""
        return f"{self.epoch};first={self.first};points={self.points}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the name that `str` wrote; raise `DecodeError` for any other text."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise DecodeError("not of the form <epoch>;first=<place>;points=<n>")
        name = cls(found[1], int(found[2]), int(found[3]))
        if name.points > _MAX_POINTS or name.last > _MAX_PLACE:
            raise DecodeError("a number is too large")
        return name


class Predecessor(Struct, frozen=True, gc=False):
    """What a spool delivered before the epoch of a batch.

    Attributes:
        epoch: the last epoch of which a batch was acknowledged; empty if there is none.
        place: the last place that the spool gave in that epoch.
        skipped: points appended since then by epochs of which nothing was delivered.
    """

    epoch: str = ""
    place: Annotated[int, Meta(ge=0, le=_MAX_PLACE)] = 0
    skipped: Annotated[int, Meta(ge=0, le=_MAX_PLACE)] = 0

    def __str__(self) -> str:
        """Return the value of the ``Plexd-After`` header."""
        before = f"{self.epoch}:{self.place}" if self.epoch else "none"
        return f"{before};skipped={self.skipped}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the predecessor that `str` wrote; raise `DecodeError` for any other text."""
        found = _AFTER.fullmatch(text)
        if found is None:
            raise DecodeError("not of the form <epoch>:<place>;skipped=<n> or none;skipped=<n>")
        before = cls(found[1] or "", int(found[2] or 0), int(found[3]))
        if max(before.place, before.skipped) > _MAX_PLACE:
            raise DecodeError("a number is too large")
        return before


def continuation(epoch: str, newest: datetime) -> str:
    """Return the epoch under which points of ``epoch`` are sent again after a clash.

    ``newest`` is the receiver's newest time stamp of ``epoch``. Two spools that rename the same
    points choose the same name, and everybody can see which epoch it continues.
    """
    moment = (newest - _START) // timedelta(microseconds=1)
    return _digest(epoch) + _digest(f"{epoch};{moment}")


def is_continuation(epoch: str, before: str) -> bool:
    """Return whether ``epoch`` was made of ``before`` by `continuation`: its places go on there."""
    return bool(before) and epoch.startswith(_digest(before))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8, person=b"plexd.epoch").hexdigest()


class MetricBatch(Sequence[MetricPoint]):
    """An immutable sequence of points, with the name and the losses that are sent with them.

    The JSON is made once, on first use, and kept: every receiver gets the same bytes.
    """

    __slots__ = ("_after", "_dropped", "_json", "_length", "_name", "_points", "_unknown_keys")

    def __init__(
        self,
        points: Iterable[MetricPoint],
        *,
        name: BatchName | None = None,
        dropped: int = 0,
        after: Predecessor | None = None,
    ) -> None:
        self._points: tuple[MetricPoint, ...] | None = tuple(points)
        self._json: bytes | None = None
        self._length = len(self._points)
        self._name = name
        self._dropped = dropped
        self._after = after
        self._unknown_keys = 0

    @classmethod
    def of_json(
        cls,
        body: bytes,
        name: BatchName,
        *,
        dropped: int = 0,
        after: Predecessor | None = None,
    ) -> MetricBatch:
        """Return the batch of JSON that was made earlier: it is sent as exactly these bytes.

        ``body`` holds ``name.points`` points. They are decoded when one is first used, which raises
        `DecodeError` if they do not follow the contract.
        """
        batch = cls((), name=name, dropped=dropped, after=after)
        batch._points, batch._json, batch._length = None, body, name.points
        return batch

    @property
    def name(self) -> BatchName | None:
        """The places of the points; None for points that no spool has named."""
        return self._name

    @property
    def dropped(self) -> int:
        """Points that the epoch of the batch has lost on the node so far."""
        return self._dropped

    @property
    def after(self) -> Predecessor | None:
        """What was delivered before the epoch of the batch; None without a spool."""
        return self._after

    @property
    def unknown_keys(self) -> int:
        """Keys of a report that were skipped when it was read."""
        return self._unknown_keys

    def to_json(self) -> bytes:
        """Return the body of a report; raise `EncodeError` for values that JSON has no form for.

        That is NaN, infinities, times without a zone and foreign objects; `check_points` checks
        the rest.
        """
        if self._json is None:
            self._json = _encode(self._read())
        return self._json

    def piece(self, start: int, stop: int) -> MetricBatch:
        """Return the points from ``start`` up to ``stop``, which keep their places."""
        name, points = self._name, self._read()[start:stop]
        if name is not None:
            name = BatchName(name.epoch, name.first + start, len(points))
        return MetricBatch(points, name=name, dropped=self._dropped, after=self._after)

    def _read(self) -> tuple[MetricPoint, ...]:
        if self._points is None:
            self._points = tuple(decode_points(self.to_json())[0])
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
        mine = (self._read(), self.name, self.dropped, self.after)
        return mine == (other._read(), other.name, other.dropped, other.after)

    __hash__ = None  # type: ignore[assignment]  # equality is by value, and points may be Raw

    def __repr__(self) -> str:
        return f"MetricBatch({len(self)} points, name={self.name!s}, dropped={self.dropped})"


def decode_batch(body: bytes) -> MetricBatch:
    """Read a report strictly about what is known: types, ranges, finite numbers, aware times.

    Keys that are not known are skipped, and counted in `MetricBatch.unknown_keys`. The data of a
    group that is not known stays as it came (`msgspec.Raw`): an object of at most 16 KiB and 16
    levels. ``null`` is an empty report. Times come out in UTC, a point that names another peer
    than its payload is refused. Raises `DecodeError` naming the first offending point and field.
    ``body`` is trusted to be of bounded size; decoding takes memory in proportion to it.
    """
    return finish(decoding_batch(body))


def decoding_batch(body: bytes) -> Generator[None, None, MetricBatch]:
    """Do what `decode_batch` does, in steps of a few milliseconds between which others may run.

    The batch is the value of the `StopIteration` after the last step. A report of the usual size
    has a single one.
    """
    points, unknown_keys = yield from decoding_points(body)
    batch = MetricBatch(points)
    batch._unknown_keys = unknown_keys  # noqa: SLF001  # of this module
    return batch


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
