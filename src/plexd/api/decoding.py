"""Reading a report, strictly and in one pass."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

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

_OUT_OF_RANGE = "time out of range in UTC"


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
_GROUP_OF: dict[type, str] = {
    _SystemPoint: GROUP_SYSTEM,
    _TunnelPoint: GROUP_TUNNEL,
    _LatencyPoint: GROUP_LATENCY,
    _AgentPoint: GROUP_AGENT,
}
_UINT64_FIELDS: dict[type, tuple[str, ...]] = {
    SystemStats: tuple(f for f in SystemStats.__struct_fields__ if f.endswith("_bytes")),
    TunnelStats: ("rx_bytes", "tx_bytes"),
    LatencyResult: (),
    AgentStats: ("heap_alloc_bytes", "heap_sys_bytes", "gc_pause_total_ns"),
}


def decode_points(body: bytes) -> list[MetricPoint]:
    """Return the points of a report's body; raise `DecodeError` as `decode_batch`."""
    try:
        read = _DECODER.decode(body)
    except msgspec.ValidationError as err:
        raise _located(err) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        reason = str(err).removeprefix("JSON is malformed: ")
        raise MalformedError(f"not JSON: {reason}") from None
    except RecursionError:
        raise MalformedError("nested too deeply") from None
    return [_accept(index, point) for index, point in enumerate(read)]


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
    return MetricPoint(
        timestamp=moment, group=_GROUP_OF[type(point)], peer_id=point.peer_id, data=data
    )


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
