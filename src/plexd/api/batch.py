"""A batch of points, its name, and the one place its JSON is made and read.

The body is the array of the seed's "API Contract". A named batch is part of the delivery
contract (``Plexd-Batch``): whoever has seen ``(epoch, seq)`` has seen these very bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints, overload

import msgspec
from msgspec import Meta, Struct

from plexd.api.errors import DecodeError, EncodeError
from plexd.api.types import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    UINT64_MAX,
    AgentStats,
    LatencyResult,
    MetricPoint,
    SystemStats,
    TunnelStats,
    _Time,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BatchName", "MetricBatch", "check_points", "decode_batch"]

_ENCODER = msgspec.json.Encoder()


class BatchName(Struct, frozen=True, gc=False):
    """``(epoch, seq)`` names a sealed batch for ever; ``offset`` and ``of`` say which part of it.

    ``epoch`` is 32 lower-case hexadecimal digits made with the node's spool, ``seq`` counts from
    1, and a body holds the sealed batch's ``of`` points from index ``offset`` on.
    """

    epoch: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    of: Annotated[int, Meta(ge=1, le=2**31 - 1)]

    def __str__(self) -> str:
        """The value of the ``Plexd-Batch`` header."""
        return f"{self.epoch};seq={self.seq};offset={self.offset};of={self.of}"


class MetricBatch(Sequence[MetricPoint]):
    """An immutable sequence of points, with the name and the loss report they travel under.

    The JSON is made once, on first use, and kept: every receiver gets the same bytes.
    """

    __slots__ = ("_dropped", "_json", "_name", "_points")

    def __init__(
        self, points: Iterable[MetricPoint], *, name: BatchName | None = None, dropped: int = 0
    ) -> None:
        self._points = tuple(points)
        self._json: bytes | None = None
        self._name = name
        self._dropped = dropped

    @property
    def name(self) -> BatchName | None:
        """Which sealed batch, and which part of it, this is."""
        return self._name

    @property
    def dropped(self) -> int:
        """Points lost on the node since the last accepted batch."""
        return self._dropped

    def to_json(self) -> bytes:
        """The body of a report. Raises `EncodeError` for points JSON has no form for."""
        if self._json is None:
            self._json = _encode(self._points)
        return self._json

    @overload
    def __getitem__(self, index: int) -> MetricPoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MetricPoint]: ...
    def __getitem__(self, index: int | slice) -> MetricPoint | Sequence[MetricPoint]:
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MetricBatch):
            return NotImplemented
        mine = (self._points, self.name, self.dropped)
        return mine == (other._points, other.name, other.dropped)

    __hash__ = None  # type: ignore[assignment]  # equality is by value, and points may be Raw

    def __repr__(self) -> str:
        return f"MetricBatch({len(self)} points, name={self.name!s}, dropped={self.dropped})"


class _Point(Struct, gc=False, kw_only=True, tag_field="group", forbid_unknown_fields=True):
    """A point as it is read: the group picks the payload's type in the same pass."""

    timestamp: _Time
    peer_id: Annotated[str, Meta(max_length=256)] = ""


class _SystemPoint(_Point, tag=GROUP_SYSTEM, gc=False):
    data: SystemStats


class _TunnelPoint(_Point, tag=GROUP_TUNNEL, gc=False):
    data: TunnelStats


class _LatencyPoint(_Point, tag=GROUP_LATENCY, gc=False):
    data: LatencyResult


class _AgentPoint(_Point, tag=GROUP_AGENT, gc=False):
    data: AgentStats


_ReadPoint = _SystemPoint | _TunnelPoint | _LatencyPoint | _AgentPoint
_DECODER = msgspec.json.Decoder(list[_ReadPoint])
_GROUP_OF: dict[type, str] = {
    _SystemPoint: GROUP_SYSTEM,
    _TunnelPoint: GROUP_TUNNEL,
    _LatencyPoint: GROUP_LATENCY,
    _AgentPoint: GROUP_AGENT,
}
_TYPE_OF: dict[str, type[Struct]] = {
    GROUP_SYSTEM: SystemStats,
    GROUP_TUNNEL: TunnelStats,
    GROUP_LATENCY: LatencyResult,
    GROUP_AGENT: AgentStats,
}
_UINT64_FIELDS: dict[type, tuple[str, ...]] = {
    SystemStats: tuple(f for f in SystemStats.__struct_fields__ if f.endswith("_bytes")),
    TunnelStats: ("rx_bytes", "tx_bytes"),
    LatencyResult: (),
    AgentStats: ("heap_alloc_bytes", "heap_sys_bytes", "gc_pause_total_ns"),
}
# The very types: conversion takes decimals and subclasses too, which the encoder does not.
_TYPES_OF: dict[type, dict[str, set[type]]] = {
    kind: {
        name: {float, int} if hint is float else {hint}
        for name, hint in get_type_hints(kind).items()
    }
    for kind in _TYPE_OF.values()
}


# What looking at a point's values raises when they are not what their types say.
_NO_POINTS = (ValueError, AttributeError, TypeError, OverflowError)
_OUT_OF_RANGE = "time out of range in UTC"


def decode_batch(body: bytes) -> MetricBatch:
    """Read a report strictly: known groups, known fields, finite numbers, aware times.

    Times come out in UTC, a point that names another peer than its payload is refused. Raises
    `DecodeError` naming the first offending point and field. ``body`` is trusted to be of bounded
    size; decoding takes memory in proportion to it.
    """
    try:
        read = _DECODER.decode(body)
    except msgspec.ValidationError as err:
        raise _located(err) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        reason = str(err).removeprefix("JSON is malformed: ")
        raise DecodeError(f"not JSON: {reason}") from None
    except RecursionError:
        raise DecodeError("nested too deeply") from None
    return MetricBatch([_accept(index, point) for index, point in enumerate(read)])


def _accept(index: int, point: _ReadPoint) -> MetricPoint:
    """The point as the rest of the program knows it, past the checks that types cannot express."""
    data: Any = point.data
    kind = type(data)
    for name in _UINT64_FIELDS[kind]:
        if getattr(data, name) > UINT64_MAX:
            raise DecodeError(f"Expected `int` <= {UINT64_MAX}", index=index, field=f"data.{name}")
    if point.peer_id and point.peer_id != getattr(data, "peer_id", ""):
        raise DecodeError("is not the payload's peer", index=index, field="peer_id")
    try:
        moment = _moment_in_utc(point.timestamp)
    except OverflowError:
        raise DecodeError(_OUT_OF_RANGE, index=index, field="timestamp") from None
    if kind is TunnelStats:
        try:
            data = _tunnel_in_utc(data)
        except OverflowError:
            field = "data.last_handshake_time"
            raise DecodeError(_OUT_OF_RANGE, index=index, field=field) from None
    return MetricPoint(
        timestamp=moment, group=_GROUP_OF[type(point)], peer_id=point.peer_id, data=data
    )


def check_points(points: Sequence[object]) -> None:
    """Raise `EncodeError` for the first point that `decode_batch` would refuse once encoded.

    For points that did not come from `decode_batch`: constructors check nothing. Payloads of one
    kind are checked in bulk, so that a good sweep of thousands costs little.
    """
    try:
        _check(points)
    except _NO_POINTS:
        for index, point in enumerate(points):
            _check_one(index, point)
        raise  # every point passes by itself and yet the sequence did not: never hide that


def _check(points: Sequence[Any]) -> None:
    shapes = {(type(p), p.group, type(p.data)) for p in points}
    for shape in shapes:
        chosen = points
        if len(shapes) > 1:
            chosen = [p for p in points if (type(p), p.group, type(p.data)) == shape]
        _check_alike(*shape, chosen)
    for moment in {p.timestamp for p in points}:
        _check_moment(moment)


def _check_moment(moment: object) -> None:
    if type(moment) is not datetime or moment.utcoffset() is None:
        raise ValueError("Expected `datetime` with a timezone component")
    _moment_in_utc(moment)


def _check_alike(kind: type, group: str, payload: type, points: Sequence[Any]) -> None:
    if kind is not MetricPoint or group not in _TYPE_OF:
        raise ValueError("Expected a `MetricPoint` of a known group")
    if payload is msgspec.Raw:
        if len(decode_batch(_ENCODER.encode(points))) != len(points):
            raise ValueError("Expected the JSON of one payload")
        return
    if payload is not _TYPE_OF[group]:
        raise ValueError(f"Expected `{_TYPE_OF[group].__name__}`, got `{payload.__name__}`")
    data = [p.data for p in points]
    _check_data(payload, data)
    _check_peers([p.peer_id for p in points], [getattr(d, "peer_id", "") for d in data])


def _check_data(payload: type, data: Sequence[Any]) -> None:
    msgspec.convert(data, _TWINS[payload], from_attributes=True)
    for name in _UINT64_FIELDS[payload]:
        if max(getattr(d, name) for d in data) > UINT64_MAX:
            raise ValueError(f"Expected `int` <= {UINT64_MAX}")
    for name, types in _TYPES_OF[payload].items():
        if not set(map(type, map(attrgetter(name), data))) <= types:
            raise ValueError(f"{name} is of another type than it has on the wire")
    if payload is TunnelStats:
        for moment in {d.last_handshake_time for d in data}:
            _check_moment(moment)


def _check_peers(own: Sequence[str], measured: Sequence[str]) -> None:
    if set(map(type, own)) != {str}:
        raise ValueError("Expected `str`")
    if any(a and a != b for a, b in zip(own, measured, strict=True)):
        raise ValueError("is not the payload's peer")
    "".join(measured).encode()  # raises for lone surrogates, which UTF-8 has no form for


def _check_one(index: int, point: object) -> None:
    """The slow way round for one point, which can say what is wrong with it."""
    if type(point) is not MetricPoint:
        raise EncodeError(f"Expected `MetricPoint`, got `{type(point).__name__}`", index=index)
    try:
        decode_batch(_ENCODER.encode([_in_utc(point)]))
        _check([point])
    except DecodeError as err:
        raise EncodeError(err.reason, index=index, field=err.field) from None
    except _NO_POINTS as err:
        raise EncodeError(str(err), index=index) from None


def _twin(kind: type[Struct]) -> Any:
    """A list of a type with ``kind``'s fields: msgspec validates only what it has to convert."""
    fields = [(f.name, f.type) for f in msgspec.structs.fields(kind)]
    twin = msgspec.defstruct(kind.__name__, fields, gc=False)
    return list[twin]  # type: ignore[valid-type]  # made at run time


_TWINS = {kind: _twin(kind) for kind in _TYPE_OF.values()}


def _encode(points: tuple[MetricPoint, ...]) -> bytes:
    try:
        return _encode_in_utc(points)
    except _NO_POINTS as err:
        check_points(points)  # says which point and why
        raise EncodeError(str(err)) from err


def _encode_in_utc(points: tuple[MetricPoint, ...]) -> bytes:
    body = _ENCODER.encode(points)
    # msgspec writes NaN and infinities as null and times in whatever zone they have. A null
    # cannot hide from the scan, and zones are compared by identity: that is all of the fast path.
    if b"null" in body or not all(_is_utc(p) for p in points):
        check_points(points)
        body = _ENCODER.encode([_in_utc(p) for p in points])
    return body


def _is_utc(point: MetricPoint) -> bool:
    data = point.data
    return point.timestamp.tzinfo is UTC and (
        type(data) is not TunnelStats or data.last_handshake_time.tzinfo is UTC
    )


def _in_utc(point: MetricPoint) -> MetricPoint:
    if _is_utc(point):
        return point
    data = point.data
    if isinstance(data, TunnelStats):
        data = _tunnel_in_utc(data)
    return msgspec.structs.replace(point, timestamp=_moment_in_utc(point.timestamp), data=data)


def _tunnel_in_utc(stats: TunnelStats) -> TunnelStats:
    moment = stats.last_handshake_time
    if moment.tzinfo is UTC:
        return stats
    return msgspec.structs.replace(stats, last_handshake_time=_moment_in_utc(moment))


def _moment_in_utc(moment: datetime) -> datetime:
    """Raises `OverflowError` within hours of the years 1 and 9999."""
    if moment.tzinfo is UTC or moment.tzinfo is None:  # naive: left for the check to refuse
        return moment
    return moment.astimezone(UTC)


# The reason may quote the sender, who may imitate a place: the last one is msgspec's.
_PLACE = re.compile(r"^(.*) - at `(?:key in )?\$\[(\d+|\.\.\.)\]\.?([^`]*)`$", re.DOTALL)
_NAMED = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$", re.DOTALL)


def _located(err: msgspec.ValidationError) -> DecodeError:
    """The message of msgspec, taken apart into reason, index and field."""
    text = str(err)
    place = _PLACE.match(text)
    if place is None:
        return DecodeError(text.partition(" - at ")[0])
    reason = place[1]
    path = [place[3]] if place[3] else []
    if named := _NAMED.match(reason):
        path.append(named[1])
    index = int(place[2]) if place[2].isdigit() else None
    return DecodeError(reason, index=index, field=".".join(path))
