"""The reporters beside the control plane's own client."""

from plexd.metrics.reporters.local import LocalReporter
from plexd.metrics.reporters.multi import MultiReporter

__all__ = ["LocalReporter", "MultiReporter"]
