"""The points of reports and answers, as the OpenAPI document describes them.

msgspec describes no union of structs, so what a point measured is described by hand.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from plexd.api import AgentStats, LatencyResult, SystemStats, TunnelStats

_PAYLOADS: Final = (SystemStats, TunnelStats, LatencyResult, AgentStats)


def _reference(to: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{to}"}


_Time = Annotated[datetime, Meta(tz=True)]
_PeerId = Annotated[str, Meta(min_length=1, max_length=256)]
_Data = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [_reference(kind.__name__) for kind in _PAYLOADS]})
]


class ReportedPoint(Struct, forbid_unknown_fields=True):
    """A point as a node sends it."""

    timestamp: _Time
    group: Literal["system", "tunnel", "latency", "agent"]
    data: _Data
    peer_id: _PeerId | UnsetType = UNSET


class PointAnswer(Struct):
    """A point as the node sent it, and when it arrived."""

    timestamp: _Time
    received_at: _Time
    group: str
    data: _Data
    peer_id: str | UnsetType = UNSET


AnyPoint = Annotated[Any, Meta(extra_json_schema=_reference("PointAnswer"))]  # a `StoredPoint`
POINT_TYPES: Final = (*_PAYLOADS, PointAnswer)
