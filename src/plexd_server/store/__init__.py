"""Where points are kept: the port, and the embedded store behind it."""

from plexd_server.store.duckdb import DuckDBStore
from plexd_server.store.port import (
    Delivery,
    Ledger,
    Loss,
    NodeSummary,
    Receipt,
    Series,
    SeriesQuery,
    Store,
    StoredPoint,
)

__all__ = [
    "Delivery",
    "DuckDBStore",
    "Ledger",
    "Loss",
    "NodeSummary",
    "Receipt",
    "Series",
    "SeriesQuery",
    "Store",
    "StoredPoint",
]
