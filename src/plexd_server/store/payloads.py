"""The groups of points that this version knows, and what a point of each says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    SystemStats,
    TunnelStats,
)

if TYPE_CHECKING:
    from msgspec import Struct

PAYLOADS: Final[dict[str, type[Struct]]] = {
    GROUP_SYSTEM: SystemStats,
    GROUP_TUNNEL: TunnelStats,
    GROUP_LATENCY: LatencyResult,
    GROUP_AGENT: AgentStats,
}
