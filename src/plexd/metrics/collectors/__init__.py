"""One collector, one file, one metric group."""

from plexd.metrics.collectors.agent import AgentStatsCollector
from plexd.metrics.collectors.latency import LatencyCollector
from plexd.metrics.collectors.system import SystemCollector
from plexd.metrics.collectors.tunnel import TunnelCollector

__all__ = ["AgentStatsCollector", "LatencyCollector", "SystemCollector", "TunnelCollector"]
