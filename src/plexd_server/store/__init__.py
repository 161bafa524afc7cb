"""The store of points: the port, and the embedded store behind it."""

from plexd_server.store.duckdb import DuckDBStore
from plexd_server.store.port import (
    Gap,
    Ledger,
    Loss,
    NodeSummary,
    Receipt,
    Report,
    Series,
    SeriesQuery,
    Store,
    StoredPoint,
)

__all__ = [
    "DuckDBStore",
    "Gap",
    "Ledger",
    "Loss",
    "NodeSummary",
    "Receipt",
    "Report",
    "Series",
    "SeriesQuery",
    "Store",
    "StoredPoint",
]
