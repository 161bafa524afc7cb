"""Points read from JSON, strictly.

A report is read in one pass, and in a second one if it says more than this version knows. A large
one is read in steps.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from plexd.api.errors import DecodeError, MalformedError
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
from plexd.steps import finish

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

S = TypeVar("S")

_AT_ONCE = 500  # points that are looked at in one step
_LARGE_BYTES = 256 * 1024  # of JSON; read at once, this is a millisecond
_OUT_OF_RANGE = "time out of range in UTC"
PAYLOADS: dict[str, type[Struct]] = {
    GROUP_SYSTEM: SystemStats,
    GROUP_TUNNEL: TunnelStats,
    GROUP_LATENCY: LatencyResult,
    GROUP_AGENT: AgentStats,
}
_GROUP_OF = {kind: group for group, kind in PAYLOADS.items()}
_FIELDS = {group: frozenset(kind.__struct_fields__) for group, kind in PAYLOADS.items()}


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
    """Read a large body element by element; a small one, or one that is no report, whole."""
    elements = (yield from _splitting(body)) if len(body) > _LARGE_BYTES else []
    points: list[MetricPoint] = []
    for first, some in _pieces(elements):
        yield
        if any(map(_is_large, some)):  # putting them together would take as much memory again
            return (yield from _decoding_whole(body))
        points += _accept_all(first, _read_piece(some, body))
    return points if elements else (yield from _decoding_whole(body))


def _decoding_whole(body: bytes) -> Generator[None, None, list[MetricPoint]]:
    points: list[MetricPoint] = []
    for first, some in _pieces(_read(body)):
        if first:
            yield
        points += _accept_all(first, some)
    return points


def _read_piece(elements: list[Raw], body: bytes) -> list[_ReadPoint]:
    try:
        return _DECODER.decode(b"[" + b",".join(elements) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _read(body)  # raises with the place in the body
        raise


def _is_large(element: Raw) -> bool:
    return memoryview(element).nbytes > _MOST_POINT_BYTES


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
    known: dict[int, Raw] = {}
    others: dict[int, MetricPoint] = {}
    skipped = 0
    for first, some in _pieces((yield from _splitting(body))):
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
    """Return the members of a point and its group; None for what is too large or no point."""
    try:
        if _is_large(element):
            return {}, None
        found = _OBJECT.decode(element)
        return found, _TEXT.decode(found["group"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return {}, None


def _is_null(body: bytes) -> bool:
    return body.strip(b" \t\r\n") == b"null"


def _splitting(body: bytes) -> Generator[None, None, list[Raw]]:
    """Return the elements of an array of objects, in steps; none for anything else."""
    yield
    objects = body.count(b"{")
    if objects > _MOST_OBJECTS or body.count(b",") > _MOST_MEMBERS * (objects + 1):
        return []  # millions of elements would cost memory, and are no points
    yield
    try:
        return _ELEMENTS.decode(body) or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


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


def _accept_all(first: int, points: Sequence[_ReadPoint]) -> list[MetricPoint]:
    return [_accept(index, point) for index, point in enumerate(points, first)]


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
