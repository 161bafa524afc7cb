"""Points between JSON and Python: reading them strictly, and checking those that were made here.

A report is read in one pass, and in a second one if it says more than this version knows.
Constructors check nothing, for speed; the checks below look at thousands of points column by
column, with the constraints of `plexd.api.wire` as msgspec sees
them, so that they cost a fraction of making the points.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, inspect

from plexd.api.errors import DecodeError, EncodeError, MalformedError
from plexd.api.wire import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    UINT64_MAX,
    AgentStats,
    LatencyResult,
    MetricPoint,
    SystemStats,
    Time,
    TunnelStats,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    Column = Sequence[Any]
    ColumnCheck = Callable[[Column], bool]

S = TypeVar("S")
T = TypeVar("T")

_AT_ONCE = 500  # points that are looked at in one step
_LARGE_BYTES = 256 * 1024  # of JSON; read at once, this is a millisecond
# What looking at values raises when they are not what their types say.
NOT_POINTS = (ValueError, AttributeError, TypeError, OverflowError)

_OUT_OF_RANGE = "time out of range in UTC"
_PAYLOADS: dict[str, type[Struct]] = {
    GROUP_SYSTEM: SystemStats,
    GROUP_TUNNEL: TunnelStats,
    GROUP_LATENCY: LatencyResult,
    GROUP_AGENT: AgentStats,
}
_GROUP_OF = {kind: group for group, kind in _PAYLOADS.items()}
_FIELDS = {group: frozenset(kind.__struct_fields__) for group, kind in _PAYLOADS.items()}


class _Point(Struct, gc=False, kw_only=True, tag_field="group", forbid_unknown_fields=True):
    """A point as it is read: the group picks the payload's type in the same pass."""

    timestamp: Time
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
_ENCODER = msgspec.json.Encoder()
_UINT64_FIELDS: dict[type, tuple[str, ...]] = {
    SystemStats: tuple(f for f in SystemStats.__struct_fields__ if f.endswith("_bytes")),
    TunnelStats: ("rx_bytes", "tx_bytes"),
    LatencyResult: (),
    AgentStats: ("heap_alloc_bytes", "heap_sys_bytes", "gc_pause_total_ns"),
}


def decode_points(body: bytes) -> tuple[list[MetricPoint], int]:
    """Return the points of a report's body, and how many keys were skipped as unknown.

    Raises `DecodeError` as `decode_batch`.
    """
    return finish(decoding_points(body))


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def decoding_points(body: bytes) -> Generator[None, None, tuple[list[MetricPoint], int]]:
    """Do what `decode_points` does, in steps of a few milliseconds; a small body has one."""
    try:
        return (yield from _decoding_strictly(body)), 0
    except MalformedError:
        raise
    except DecodeError:  # without a name, which would keep the body alive in a circle
        read = yield from _decoding_openly(body)
        if read is None:
            raise
        return read


def _decoding_strictly(body: bytes) -> Generator[None, None, list[MetricPoint]]:
    points: list[MetricPoint] = []
    for first, some in _reading(body):
        if first:
            yield
        points += [_accept(index, point) for index, point in enumerate(some, first)]
    return points


def _reading(body: bytes) -> Iterator[tuple[int, list[_ReadPoint]]]:
    """Read the points piece by piece; a small body, or one that is no report, is read whole."""
    elements = _elements(body) if len(body) > _LARGE_BYTES else []
    if not elements:
        yield from _pieces(_read(body))
        return
    for first, some in _pieces(elements):
        try:
            read = _DECODER.decode(b"[" + b",".join(some) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _read(body)  # raises with the place in the body
            raise
        yield first, read


def _read(body: bytes) -> list[_ReadPoint]:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as err:
        raise _located(err) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        reason = str(err).removeprefix("JSON is malformed: ")
        raise MalformedError(f"not JSON: {reason}") from None
    except RecursionError:
        raise MalformedError("nested too deeply") from None


def _pieces(all_of_them: list[S]) -> Iterator[tuple[int, list[S]]]:
    """Cut a list, and give each piece the index of its first."""
    for first in range(0, len(all_of_them), _AT_ONCE):
        yield first, all_of_them[first : first + _AT_ONCE]


# A newer sender may say more than this version knows (docs/spec/delivery.md). What is known is
# read as strictly as ever, once the rest is out of the way.

_ELEMENTS = msgspec.json.Decoder(list[Raw] | None)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_TEXT = msgspec.json.Decoder(str)
_GROUP = re.compile("[a-z0-9_]{1,64}")
_POINT_KEYS = frozenset({"timestamp", "group", "peer_id", "data"})
_MOST_OTHER_BYTES, _MOST_OTHER_DEPTH = 16 * 1024, 16
# Members cost memory, so that a larger point is refused unread.
_MOST_POINT_BYTES = 64 * 1024
_MOST_OBJECTS, _MOST_MEMBERS = 200_000, 64


class _OtherPoint(Struct, gc=False, kw_only=True):
    """A point of a group that this version does not know."""

    timestamp: Time
    group: str
    peer_id: Annotated[str, Meta(max_length=256)] = ""
    data: Raw


_OTHER = msgspec.json.Decoder(_OtherPoint)


def _decoding_openly(
    body: bytes,
) -> Generator[None, None, tuple[list[MetricPoint], int] | None]:
    """Return the points with unknown keys skipped; None if it is not that which is wrong."""
    yield
    known: dict[int, Raw] = {}
    others: dict[int, MetricPoint] = {}
    skipped = 0
    for first, some in _pieces(_elements(body)):
        yield
        for index, element in enumerate(some, first):
            found, group = _opened(element)
            if group is None:
                return None
            if group in _FIELDS:
                known[index], unknown = _known(found, group)
                skipped += unknown
            else:
                others[index] = _other_point(index, group, found)
                skipped += len(found.keys() - _POINT_KEYS)
    if not (skipped or others or _is_null(body)):
        return None
    points = others | dict(zip(known, (yield from _decoding_apart(known)), strict=True))
    return [points[index] for index in sorted(points)], skipped


def _opened(element: Raw) -> tuple[dict[str, Raw], str | None]:
    """Return the members of a point and its group, which is None for what is no point."""
    try:
        found = _OBJECT.decode(element)
        return found, _TEXT.decode(found["group"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return {}, None


def _is_null(body: bytes) -> bool:
    return body.strip(b" \t\r\n") == b"null"


def _elements(body: bytes) -> list[Raw]:
    """Return the elements of an array of objects of no unusual size; none for anything else."""
    objects = body.count(b"{")
    if objects > _MOST_OBJECTS or body.count(b",") > _MOST_MEMBERS * (objects + 1):
        return []  # millions of elements would cost memory, and are no points
    try:
        elements = _ELEMENTS.decode(body) or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    if any(memoryview(element).nbytes > _MOST_POINT_BYTES for element in elements):
        return []
    return elements


def _known(found: dict[str, Raw], group: str) -> tuple[Raw, int]:
    """Return what this version knows of a point, and how many keys that leaves out."""
    kept: dict[str, Any] = {key: found[key] for key in found if key in _POINT_KEYS}
    skipped = len(found) - len(kept)
    try:
        data = _OBJECT.decode(found["data"])
        kept["data"] = {key: value for key, value in data.items() if key in _FIELDS[group]}
        skipped += len(data) - len(kept["data"])
    except (KeyError, msgspec.DecodeError):
        pass  # the strict pass says what is wrong with it
    return Raw(_ENCODER.encode(kept)), skipped


def _decoding_apart(known: dict[int, Raw]) -> Generator[None, None, list[MetricPoint]]:
    """Read the points strictly; an error names the index that the point has in the report."""
    yield
    try:
        return (yield from _decoding_strictly(_ENCODER.encode(list(known.values()))))
    except DecodeError as err:
        if err.index is not None:
            index = list(known)[err.index]
            raise DecodeError(err.reason, index=index, field=err.field) from None
        raise


def _other_point(index: int, group: str, found: dict[str, Raw]) -> MetricPoint:
    if not _GROUP.fullmatch(group):
        raise DecodeError("Expected 1 to 64 of a-z, 0-9 and _", index=index, field="group")
    try:
        point = _OTHER.decode(_ENCODER.encode(found))
        moment = moment_in_utc(point.timestamp)
    except msgspec.ValidationError as err:
        reason, _, place = str(err).partition(" - at `$.")
        raise DecodeError(reason, index=index, field=place.rstrip("`")) from None
    except OverflowError:
        raise DecodeError(_OUT_OF_RANGE, index=index, field="timestamp") from None
    reason = _fault_of(bytes(point.data))
    if reason:
        raise DecodeError(reason, index=index, field="data")
    return MetricPoint(timestamp=moment, group=group, peer_id=point.peer_id, data=point.data)


def _fault_of(data: bytes) -> str:
    """Return why these bytes are no payload that can be carried; empty if they are one."""
    if len(data) > _MOST_OTHER_BYTES:
        return f"Expected at most {_MOST_OTHER_BYTES} bytes"
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as err:  # a number that is not finite, too
        return str(err).partition(" - at ")[0]
    if not isinstance(value, dict):
        return "Expected `object`"
    level: list[Any] = [value]
    for _ in range(_MOST_OTHER_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return ""
    return f"Expected at most {_MOST_OTHER_DEPTH} levels"


def _inner(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _accept(index: int, point: _ReadPoint) -> MetricPoint:
    """Return the point as `MetricPoint`, after the checks that types cannot express."""
    data: Any = point.data
    kind = type(data)
    for name in _UINT64_FIELDS[kind]:
        if getattr(data, name) > UINT64_MAX:
            raise DecodeError(f"Expected `int` <= {UINT64_MAX}", index=index, field=f"data.{name}")
    if point.peer_id and point.peer_id != getattr(data, "peer_id", ""):
        raise DecodeError("is not the payload's peer", index=index, field="peer_id")
    try:
        moment = moment_in_utc(point.timestamp)
    except OverflowError:
        raise DecodeError(_OUT_OF_RANGE, index=index, field="timestamp") from None
    if kind is TunnelStats:
        try:
            data = tunnel_in_utc(data)
        except OverflowError:
            field = "data.last_handshake_time"
            raise DecodeError(_OUT_OF_RANGE, index=index, field=field) from None
    return MetricPoint(timestamp=moment, group=_GROUP_OF[kind], peer_id=point.peer_id, data=data)


def tunnel_in_utc(stats: TunnelStats) -> TunnelStats:
    """Return ``stats`` with its time in UTC; raise as `moment_in_utc`."""
    moment = stats.last_handshake_time
    if moment.tzinfo is UTC:
        return stats
    return msgspec.structs.replace(stats, last_handshake_time=moment_in_utc(moment))


def moment_in_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, a naive one unchanged; `OverflowError` near years 1 and 9999."""
    if moment.tzinfo is UTC or moment.tzinfo is None:
        return moment
    return moment.astimezone(UTC)


# The reason may quote the sender, who may imitate a place: only the last one is msgspec's.
_PLACE = re.compile(r"^(.*) - at `(?:key in )?\$\[(\d+|\.\.\.)\]\.?([^`]*)`$", re.DOTALL)
_NAMED = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$", re.DOTALL)


def _located(err: msgspec.ValidationError) -> DecodeError:
    """Return msgspec's error with its reason, index and field apart."""
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


_group = attrgetter("group")
_data = attrgetter("data")
_peer_id = attrgetter("peer_id")
_timestamp = attrgetter("timestamp")
_zone = attrgetter("tzinfo")
_timestamp_zone = attrgetter("timestamp.tzinfo")


def check_points(points: Sequence[object]) -> None:
    """Raise `EncodeError` for the first point that `decode_batch` would refuse once encoded."""
    try:
        if _are_fit(points):
            return
    except NOT_POINTS:
        pass  # the slow check says which point it is
    for index, point in enumerate(points):
        _check_one(index, point)
    raise EncodeError("not points")  # each passes alone, but not all together: never hide that


def _check_one(index: int, point: object) -> None:
    """Check one point slowly, and raise with what is wrong with it."""
    if type(point) is not MetricPoint:
        raise EncodeError(f"Expected `MetricPoint`, got `{type(point).__name__}`", index=index)
    try:
        decode_points(_ENCODER.encode([in_utc(point)]))
        _check_values(index, point)
    except DecodeError as err:
        raise EncodeError(err.reason, index=index, field=err.field) from None
    except NOT_POINTS as err:
        raise EncodeError(str(err), index=index) from None


def _check_values(index: int, point: MetricPoint) -> None:
    """Raise for values that decode well but are not of the wire's types."""
    if _are_fit([point]):
        return
    if isinstance(point.data, msgspec.Raw):
        raise EncodeError("Expected the JSON of one payload", index=index)
    kind = type(point.data)
    values = msgspec.structs.astuple(point.data)
    for name, fits, value in zip(kind.__struct_fields__, _CHECKS[kind], values, strict=True):
        if not fits((value,)):
            reason = f"Expected the type it has on the wire, got `{type(value).__name__}`"
            raise EncodeError(reason, index=index, field=f"data.{name}")
    raise EncodeError("Expected the types it has on the wire", index=index)


def _are_fit(points: Sequence[Any]) -> bool:
    if not set(map(type, points)) <= {MetricPoint}:
        return False
    groups = set(map(_group, points))
    return _times_fit(list(map(_timestamp, points))) and all(
        _group_fits(group, [p for p in points if p.group == group] if len(groups) > 1 else points)
        for group in groups
    )


def _group_fits(group: str, points: Sequence[MetricPoint]) -> bool:
    payloads: list[Any] = list(map(_data, points))
    kinds = set(map(type, payloads))
    if msgspec.Raw in kinds:
        return all(len(decode_points(_ENCODER.encode([point]))[0]) == 1 for point in points)
    if kinds != {_PAYLOADS.get(group)}:
        return False
    columns = list(zip(*map(msgspec.structs.astuple, payloads), strict=True))
    checks = _CHECKS[_PAYLOADS[group]]
    measured = columns[0] if group in {GROUP_TUNNEL, GROUP_LATENCY} else ("",) * len(points)
    return all(fits(column) for fits, column in zip(checks, columns, strict=True)) and (
        _peers_fit(tuple(map(_peer_id, points)), measured)
    )


def _peers_fit(own: Column, measured: Column) -> bool:
    """Return whether each point that names a peer names its payload's."""
    return own == measured or all(
        type(a) is str and a in {"", b} for a, b in zip(own, measured, strict=True)
    )


def _times_fit(column: Column) -> bool:
    if not set(map(type, column)) <= {datetime}:
        return False
    if set(map(_zone, column)) <= {UTC}:
        return True
    return all(moment_in_utc(moment).utcoffset() is not None for moment in column)


def _bools_fit(column: Column) -> bool:
    return set(map(type, column)) <= {bool}


def _ints_check(info: inspect.IntType) -> ColumnCheck:
    low = -(2**63) if info.ge is None else info.ge
    # An upper bound that msgspec cannot hold is that of the wire's unsigned 64 bits.
    high = UINT64_MAX if info.le is None else info.le
    return lambda column: (
        set(map(type, column)) <= {int} and low <= min(column) and max(column) <= high
    )


def _floats_check(info: inspect.FloatType) -> ColumnCheck:
    low = -math.inf if info.ge is None else info.ge
    high = math.inf if info.le is None else info.le
    return lambda column: _are_floats(column) and low <= min(column) and max(column) <= high


def _are_floats(column: Column) -> bool:
    """Return whether all are finite floats, or whole numbers that a float holds exactly."""
    if not all(map(math.isfinite, column)):
        return False
    kinds = set(map(type, column))
    return kinds <= {float} or (
        kinds <= {float, int} and all(int(float(v)) == v for v in column if type(v) is int)
    )


def _texts_check(info: inspect.StrType) -> ColumnCheck:
    shortest, longest = info.min_length or 0, info.max_length or math.inf
    return lambda column: (
        set(map(type, column)) <= {str}
        and shortest <= min(map(len, column))
        and max(map(len, column)) <= longest
        # Raises for lone surrogates, which UTF-8 has no form for.
        and "".join(column).encode() is not None
    )


def _column_check(info: inspect.Type) -> ColumnCheck:
    match info:
        case inspect.IntType():
            return _ints_check(info)
        case inspect.FloatType():
            return _floats_check(info)
        case inspect.StrType():
            return _texts_check(info)
        case inspect.BoolType():
            return _bools_fit
        case inspect.DateTimeType():
            return _times_fit
    raise TypeError(f"no check for columns of {info}")


def _fields(kind: type[Struct]) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described.fields


_CHECKS = {
    kind: [_column_check(field.type) for field in _fields(kind)] for kind in _PAYLOADS.values()
}


def are_plain(points: Sequence[MetricPoint]) -> bool:
    """Return whether msgspec writes ``points`` as the contract wants them.

    It would write NaN and infinities as null, and times in whatever zone they have.
    """
    if set(map(_timestamp_zone, points)) - {UTC}:
        return False
    payloads = list(map(_data, points))
    kinds = set(map(type, payloads))
    return all(
        _is_plain(kind, payloads if len(kinds) == 1 else [p for p in payloads if type(p) is kind])
        for kind in kinds
    )


def _is_plain(kind: type, payloads: Sequence[Any]) -> bool:
    if kind not in _FLOATS:  # Raw, or no payload at all
        return False
    return all(set(map(zone, payloads)) == {UTC} for zone in _ZONES[kind]) and all(
        all(map(math.isfinite, map(number, payloads))) for number in _FLOATS[kind]
    )


def _getters(wanted: type, path: str) -> dict[type, list[Callable[[Any], Any]]]:
    """Return what reads the fields of the ``wanted`` type, by payload."""
    return {
        kind: [attrgetter(path % f.name) for f in _fields(kind) if isinstance(f.type, wanted)]
        for kind in _PAYLOADS.values()
    }


_FLOATS = _getters(inspect.FloatType, "%s")
_ZONES = _getters(inspect.DateTimeType, "%s.tzinfo")


def in_utc(point: MetricPoint) -> MetricPoint:
    """Return ``point`` with its times in UTC; naive ones stay, for the check to refuse."""
    data = point.data
    if isinstance(data, TunnelStats):
        data = tunnel_in_utc(data)
    return msgspec.structs.replace(point, timestamp=moment_in_utc(point.timestamp), data=data)
