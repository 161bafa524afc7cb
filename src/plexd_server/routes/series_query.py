"""The query of a series in a URL's parameters.

    ?group=system&field=cpu_usage_percent&field=load_avg_1&since=15m&until=2026-02-12T10:30:00Z&step=15

``group`` defaults to ``system``; ``peer_id`` is needed if the group has peers; ``since`` and
``until`` are RFC 3339 times or lengths of time ago (``90s``, ``1h30m``, ``7d``), by default
the last fifteen minutes; ``step`` is in seconds, by default for about 240 buckets. A step of whole
five minutes, or hours, is read from rollups, so one that is not chosen is rounded to that.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from plexd.api import GROUP_AGENT, GROUP_LATENCY, GROUP_SYSTEM, GROUP_TUNNEL
from plexd.units import parse_duration
from plexd_server.store import COUNTERS, SeriesQuery
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    GROUP_SYSTEM: (
        "cpu_usage_percent",
        "memory_used_bytes",
        "memory_total_bytes",
        "disk_used_bytes",
        "disk_total_bytes",
        "network_rx_bytes",
        "network_tx_bytes",
        "load_avg_1",
        "load_avg_5",
        "load_avg_15",
    ),
    GROUP_AGENT: (
        "goroutine_count",
        "heap_alloc_bytes",
        "heap_sys_bytes",
        "gc_pause_total_ns",
        "gc_num_gc",
        "uptime_seconds",
        "reconnect_count",
    ),
    GROUP_TUNNEL: ("rx_bytes", "tx_bytes", "packet_loss_percent"),
    GROUP_LATENCY: ("rtt_nano",),
}
_TEXT: Final = Schema(type=OpenAPIType.STRING)
_ANY_FIELDS: Final = Schema(
    type=OpenAPIType.ARRAY, items=Schema(enum=sorted({f for of in FIELDS.values() for f in of}))
)
_WHOLE_SECONDS: Final = Schema(type=OpenAPIType.STRING, pattern="^[1-9][0-9]{0,6}$")
SERIES_PARAMETERS: Final = (
    Parameter("group", "query", Schema(enum=list(FIELDS)), "by default `system`"),
    Parameter("field", "query", _ANY_FIELDS, "once or more", required=True),
    Parameter("peer_id", "query", _TEXT, "where the group has peers, and only there"),
    Parameter("since", "query", _TEXT, "an RFC 3339 time, or a length of time ago such as `15m`"),
    Parameter("until", "query", _TEXT, "the same; by default now"),
    Parameter("step", "query", _WHOLE_SECONDS, "seconds of a bucket"),
)
_PEER_GROUPS = (GROUP_TUNNEL, GROUP_LATENCY)
_MAX_RANGE = timedelta(days=3660)
_MAX_UNROLLED = timedelta(days=31)
_ROLLUP_SECONDS = (3600, 300)
_DEFAULT_RANGE = timedelta(minutes=15)
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
_MAX_BUCKETS = 2_000
_DEFAULT_BUCKETS = 240
# A time begins with a year of four digits and a hyphen.
_IS_DURATION = re.compile(r"[0-9.]+[a-z]")


def parse_series_query(
    node_id: str, parameters: Mapping[str, Sequence[str]], *, now: datetime
) -> SeriesQuery:
    """Read the query from a URL's parameters. Raises `Problem` 400 with the wrong parameter."""
    group = _one(parameters, "group", GROUP_SYSTEM)
    until = _time(parameters, "until", now, now)
    since = _time(parameters, "since", now, _before(until))
    if not timedelta(0) < until - since <= _MAX_RANGE:
        raise _bad("since", f"must lie before until, by at most {_MAX_RANGE.days} days")
    fields = _fields(parameters, group)
    return SeriesQuery(
        node_id=node_id,
        group=group,
        fields=fields,
        rates=COUNTERS.intersection(fields),
        since=since,
        until=until,
        step=_step(parameters, until - since),
        peer_id=_peer(parameters, group),
    )


def _before(until: datetime) -> datetime:
    """Return the default of ``since``; at the beginning of time it is a wrong ``until``."""
    return until - _DEFAULT_RANGE if until - _FIRST_TIME > _DEFAULT_RANGE else until


def _fields(parameters: Mapping[str, Sequence[str]], group: str) -> tuple[str, ...]:
    if group not in FIELDS:
        raise _bad("group", f"must be one of {', '.join(FIELDS)}")
    fields = tuple(dict.fromkeys(parameters.get("field", ())))
    if not fields or not set(fields) <= set(FIELDS[group]):
        raise _bad("field", f"must be one or more of {', '.join(FIELDS[group])}")
    return fields


def _peer(parameters: Mapping[str, Sequence[str]], group: str) -> str:
    peer_id = _one(parameters, "peer_id", "")
    if bool(peer_id) is not (group in _PEER_GROUPS):
        raise _bad("peer_id", f"goes with the groups {' and '.join(_PEER_GROUPS)}, and only those")
    return peer_id


def _step(parameters: Mapping[str, Sequence[str]], span: timedelta) -> timedelta:
    text = _one(parameters, "step", str(_default_step(span.total_seconds() / _DEFAULT_BUCKETS)))
    if not re.fullmatch("[1-9][0-9]{0,6}", text) or span.total_seconds() / int(text) > _MAX_BUCKETS:
        raise _bad("step", f"must be whole seconds making at most {_MAX_BUCKETS} buckets")
    if span > _MAX_UNROLLED and int(text) % min(_ROLLUP_SECONDS):
        days = _MAX_UNROLLED.days
        raise _bad("step", f"must be a multiple of 300 if more than {days} days are asked for")
    return timedelta(seconds=int(text))


def _default_step(seconds: float) -> int:
    """Return about so many seconds: whole hours, five minutes or seconds."""
    unit = next((unit for unit in _ROLLUP_SECONDS if seconds >= unit), 1)
    return max(1, round(seconds / unit)) * unit


def _time(
    parameters: Mapping[str, Sequence[str]], name: str, now: datetime, default: datetime
) -> datetime:
    text = _one(parameters, name, "")
    if not text:
        return default
    try:
        if _IS_DURATION.match(text):
            return now - parse_duration(text)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _bad(name, "must be an RFC 3339 time or a length of time such as 15m")


def _one(parameters: Mapping[str, Sequence[str]], name: str, default: str) -> str:
    values = parameters.get(name, ())
    if len(values) > 1:
        raise _bad(name, "may be given once")
    return values[0] if values else default


def _bad(name: str, reason: str) -> Problem:
    return Problem(400, f"{name} {reason}", field=name)
