"""Keeping points safe between their collection and their delivery."""

from plexd.spool.memory import MemorySpool
from plexd.spool.port import Spool, SpoolStatistics

__all__ = ["MemorySpool", "Spool", "SpoolStatistics"]
