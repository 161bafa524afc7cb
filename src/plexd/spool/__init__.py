"""Keeping points safe between their collection and their delivery."""

from typing import TYPE_CHECKING

from plexd.spool.errors import SpoolError, SpoolLockedError
from plexd.spool.memory import MemorySpool
from plexd.spool.port import Refusal, Spool, SpoolStatistics

if TYPE_CHECKING:
    from plexd.spool.disk import DiskSpool

__all__ = [
    "DiskSpool",
    "MemorySpool",
    "Refusal",
    "Spool",
    "SpoolError",
    "SpoolLockedError",
    "SpoolStatistics",
]


def __getattr__(name: str) -> object:
    """Load `DiskSpool` when it is used: it brings SQLite with it."""
    if name != "DiskSpool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from plexd.spool.disk import DiskSpool  # noqa: PLC0415 - see above

    return DiskSpool
