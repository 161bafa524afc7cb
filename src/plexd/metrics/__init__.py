"""The pipeline of the specification: collectors feed a manager, the manager feeds reporters.

`Manager` runs `Collector`s on a grid, keeps their points in a spool, and hands batches to a
`MetricReporter`. Everything it uses is behind a port; `plexd.metrics.testing` has a fake for each.
"""

from plexd.api import (
    GROUP_AGENT,
    GROUP_LATENCY,
    GROUP_SYSTEM,
    GROUP_TUNNEL,
    AgentStats,
    LatencyResult,
    LocalEndpointConfig,
    SystemStats,
    TunnelStats,
)
from plexd.clock import Clock, SystemClock
from plexd.metrics.collector_loop import CollectorStatistics
from plexd.metrics.collectors import (
    AgentStatsCollector,
    LatencyCollector,
    SystemCollector,
    TunnelCollector,
)
from plexd.metrics.config import Config
from plexd.metrics.delivery import DeliveryStatistics
from plexd.metrics.errors import CollectError, ConfigError, CredentialError
from plexd.metrics.manager import Manager, ManagerStatistics
from plexd.metrics.ports import (
    Collector,
    MetricReporter,
    PeerLister,
    Pinger,
    ReconnectCounter,
    SecretFetcher,
    SystemReader,
    TunnelStatsReader,
)
from plexd.metrics.reporters import LocalReporter, MultiReporter
from plexd.spool import MemorySpool, Spool, SpoolStatistics

__all__ = [
    "GROUP_AGENT",
    "GROUP_LATENCY",
    "GROUP_SYSTEM",
    "GROUP_TUNNEL",
    "AgentStats",
    "AgentStatsCollector",
    "Clock",
    "CollectError",
    "Collector",
    "CollectorStatistics",
    "Config",
    "ConfigError",
    "CredentialError",
    "DeliveryStatistics",
    "LatencyCollector",
    "LatencyResult",
    "LocalEndpointConfig",
    "LocalReporter",
    "Manager",
    "ManagerStatistics",
    "MemorySpool",
    "MetricReporter",
    "MultiReporter",
    "PeerLister",
    "Pinger",
    "ReconnectCounter",
    "SecretFetcher",
    "Spool",
    "SpoolStatistics",
    "SystemClock",
    "SystemCollector",
    "SystemReader",
    "SystemStats",
    "TunnelCollector",
    "TunnelStats",
    "TunnelStatsReader",
]
