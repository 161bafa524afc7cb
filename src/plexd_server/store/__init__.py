"""The store of points: the port, and the embedded store behind it."""

from plexd_server.store.embedded import Apart, DuckDBStore
from plexd_server.store.port import (
    COUNTERS,
    HORIZON,
    Branch,
    Gap,
    Ledger,
    Loss,
    NodeSummary,
    Report,
    Series,
    SeriesQuery,
    Store,
    StoredPoint,
    Written,
)

__all__ = [
    "COUNTERS",
    "HORIZON",
    "Apart",
    "Branch",
    "DuckDBStore",
    "Gap",
    "Ledger",
    "Loss",
    "NodeSummary",
    "Report",
    "Series",
    "SeriesQuery",
    "Store",
    "StoredPoint",
    "Written",
]
