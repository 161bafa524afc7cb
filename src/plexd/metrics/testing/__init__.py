"""A fake for every port, held to the same contract suites as the real parts.

For tests of code built on `plexd.metrics`: nothing here opens a socket or waits for real time.
"""

from plexd.metrics.testing.clock import ManualClock
from plexd.metrics.testing.sinks import RecordingReporter, ScriptedFetcher
from plexd.metrics.testing.sources import (
    ManualPeers,
    ManualReconnects,
    ScriptedCollector,
    ScriptedPinger,
    ScriptedSystemReader,
    ScriptedTunnelReader,
    system_point,
)

__all__ = [
    "ManualClock",
    "ManualPeers",
    "ManualReconnects",
    "RecordingReporter",
    "ScriptedCollector",
    "ScriptedFetcher",
    "ScriptedPinger",
    "ScriptedSystemReader",
    "ScriptedTunnelReader",
    "system_point",
]
