"""The embedded store: a journal that makes reports durable, and DuckDB that answers."""

from plexd_server.store.duckdb.opening import open_database
from plexd_server.store.duckdb.store import FILE_NAME, JOURNAL_NAME, DuckDBStore

__all__ = ["FILE_NAME", "JOURNAL_NAME", "DuckDBStore", "open_database"]
