"""Checks of points that were made here, before they are written as JSON.

Constructors check nothing, for speed. The checks look at thousands of points column by column, with
the constraints of `plexd.api.wire` as msgspec sees them, so that they cost a fraction of making the
points.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, inspect

from plexd.api.decoding import PAYLOADS, decode_points, moment_in_utc, tunnel_in_utc
from plexd.api.errors import DecodeError, EncodeError
from plexd.api.wire import GROUP_LATENCY, GROUP_TUNNEL, UINT64_MAX, MetricPoint, TunnelStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Column = Sequence[Any]
    ColumnCheck = Callable[[Column], bool]

# What looking at values raises when they are not what their types say.
NOT_POINTS = (ValueError, AttributeError, TypeError, OverflowError)

_ENCODER = msgspec.json.Encoder()
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
    if kinds != {PAYLOADS.get(group)}:
        return False
    columns = list(zip(*map(msgspec.structs.astuple, payloads), strict=True))
    checks = _CHECKS[PAYLOADS[group]]
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
    kind: [_column_check(field.type) for field in _fields(kind)] for kind in PAYLOADS.values()
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
        for kind in PAYLOADS.values()
    }


_FLOATS = _getters(inspect.FloatType, "%s")
_ZONES = _getters(inspect.DateTimeType, "%s.tzinfo")


def in_utc(point: MetricPoint) -> MetricPoint:
    """Return ``point`` with its times in UTC; naive ones stay, for the check to refuse."""
    data = point.data
    if isinstance(data, TunnelStats):
        data = tunnel_in_utc(data)
    return msgspec.structs.replace(point, timestamp=moment_in_utc(point.timestamp), data=data)
