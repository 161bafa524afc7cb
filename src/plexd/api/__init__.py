"""The contract between nodes and the control plane: wire types, errors and the client."""

from plexd.api.answers import parse_reason
from plexd.api.batch import (
    BatchName,
    MetricBatch,
    Predecessor,
    continuation,
    decode_batch,
    decoding_batch,
    is_continuation,
)
from plexd.api.client import ControlPlane
from plexd.api.config import Config, LocalEndpointConfig
from plexd.api.errors import (
    APIError,
    DecodeError,
    EncodeError,
    MalformedError,
    TLSError,
    TransportError,
)
from plexd.api.points import check_points
from plexd.api.proxy import Proxy, parse_proxy
from plexd.api.secret import Secret, check_bearer
from plexd.api.special_addresses import ends_of, special_purpose
from plexd.api.transport import HTTPTransport
from plexd.api.trust import Trust
from plexd.api.wire import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    MetricPoint,
    Peer,
    Receipt,
    Registration,
    SecretResponse,
    SystemStats,
    TunnelStats,
)
from plexd.api.zones import check_zone, with_plain_zone

__all__ = [
    "GROUP_AGENT",
    "GROUP_LATENCY",
    "GROUP_SYSTEM",
    "GROUP_TUNNEL",
    "APIError",
    "AgentStats",
    "BatchName",
    "Config",
    "ControlPlane",
    "DecodeError",
    "EncodeError",
    "HTTPTransport",
    "LatencyResult",
    "LocalEndpointConfig",
    "MalformedError",
    "MetricBatch",
    "MetricPoint",
    "Peer",
    "Predecessor",
    "Proxy",
    "Receipt",
    "Registration",
    "Secret",
    "SecretResponse",
    "SystemStats",
    "TLSError",
    "TransportError",
    "Trust",
    "TunnelStats",
    "check_bearer",
    "check_points",
    "check_zone",
    "continuation",
    "decode_batch",
    "decoding_batch",
    "ends_of",
    "is_continuation",
    "parse_proxy",
    "parse_reason",
    "special_purpose",
    "with_plain_zone",
]
