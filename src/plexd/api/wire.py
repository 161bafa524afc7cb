"""The wire types of the specification: names, order and units are the seed's.

Byte and nanosecond counts are unsigned 64-bit on the wire; times are aware, RFC 3339. The
constraints written into the annotations are enforced by `plexd.api.decode_batch` and by
`plexd.api.check_points`, not by the constructors, which trust their caller.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from plexd.api.secret import Secret

GROUP_SYSTEM: Final = "system"
GROUP_TUNNEL: Final = "tunnel"
GROUP_LATENCY: Final = "latency"
GROUP_AGENT: Final = "agent"

UINT64_MAX: Final = 2**64 - 1

# msgspec accepts only bounds of an int64, so the upper bound of Uint64 is checked apart.
_Uint64 = Annotated[int, Meta(ge=0)]
_Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# The largest float64 as an upper bound refuses infinities and NaN.
_Finite = Annotated[float, Meta(ge=0, le=1.7976931348623157e308)]
_Percent = Annotated[float, Meta(ge=0, le=100)]
_PercentOrUnknown = Annotated[float, Meta(ge=-1, le=100)]
_PeerID = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[datetime, Meta(tz=True)]


class SystemStats(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One reading of the machine (group ``system``)."""

    cpu_usage_percent: _Percent
    memory_used_bytes: _Uint64
    memory_total_bytes: _Uint64
    disk_used_bytes: _Uint64
    disk_total_bytes: _Uint64
    network_rx_bytes: _Uint64
    network_tx_bytes: _Uint64
    load_avg_1: _Finite
    load_avg_5: _Finite
    load_avg_15: _Finite


class TunnelStats(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One tunnel's health (group ``tunnel``).

    A peer without any handshake has ``last_handshake_time`` 0001-01-01T00:00:00Z;
    ``packet_loss_percent`` is -1 when it is not measured.
    """

    peer_id: _PeerID
    last_handshake_time: Time
    rx_bytes: _Uint64
    tx_bytes: _Uint64
    handshake_succeeded: bool
    handshake_stale: bool
    packet_loss_percent: _PercentOrUnknown


class LatencyResult(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One round trip in nanoseconds (group ``latency``); -1 means the peer did not answer."""

    peer_id: _PeerID
    rtt_nano: Annotated[int, Meta(ge=-1, le=2**63 - 1)]


class AgentStats(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The agent's own health (group ``agent``), under the names the Go agent uses.

    ``goroutine_count`` counts asyncio tasks and threads, ``heap_alloc_bytes`` is resident
    anonymous memory, ``heap_sys_bytes`` the mapped data segment.
    """

    goroutine_count: _Count
    heap_alloc_bytes: _Uint64
    heap_sys_bytes: _Uint64
    gc_pause_total_ns: _Uint64
    gc_num_gc: _Uint32
    uptime_seconds: _Finite
    reconnect_count: _Count


class MetricPoint(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One measurement. ``peer_id`` is set for the groups ``tunnel`` and ``latency`` only.

    ``data`` is the group's type, or `msgspec.Raw` holding its JSON.
    """

    timestamp: datetime
    group: str
    peer_id: str = ""
    data: SystemStats | TunnelStats | LatencyResult | AgentStats | Raw


class Peer(Struct, frozen=True):
    """Another node of the mesh; ``public_key`` is base64 as ``wg`` prints it."""

    id: str
    public_key: str
    mesh_ip: str


class Registration(Struct, frozen=True):
    """What a node gets for its bootstrap token: who it is, its keys and its peers."""

    node_id: str
    mesh_ip: str
    node_secret_key: str
    auth_token: str
    peers: list[Peer] = []

    def __repr__(self) -> str:
        return (
            f"Registration(node_id={self.node_id!r}, mesh_ip={self.mesh_ip!r}, "
            f"node_secret_key={Secret(self.node_secret_key)!r}, "
            f"auth_token={Secret(self.auth_token)!r}, peers={self.peers!r})"
        )


class SecretResponse(Struct, frozen=True):
    """A secret sealed under this node's key; ``ciphertext`` and ``nonce`` are base64."""

    key: str
    ciphertext: str
    nonce: str
    version: int


class Receipt(Struct, frozen=True):
    """The answer to a report: what became of its points.

    Attributes:
        accepted: points that are durable now, by this report or by an earlier one.
        duplicate: whether the report had no effect, as all its places were received before.
        clash: whether the places are those of other points: another machine sends under the same
            epoch. Nothing was stored.
        upto: with ``clash``, the highest place received in the epoch.
        newest: with ``clash``, the newest time stamp received in the epoch.
        rejected: points that were refused one by one; they are not to be sent again.
        reason: why they were refused.
    """

    accepted: int
    duplicate: bool = False
    clash: bool = False
    upto: int = 0
    newest: datetime | None = None
    rejected: int = 0
    reason: str = ""
