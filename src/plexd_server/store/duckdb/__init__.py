"""The tables of the embedded store: DuckDB, loaded from the journal, and answers from it."""

from plexd_server.store.duckdb.opening import open_database

__all__ = ["open_database"]
