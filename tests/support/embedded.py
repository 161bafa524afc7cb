"""Looking into the tables of an embedded store whose tables are a thread of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd_server.store.embedded.launching import TablesThread

if TYPE_CHECKING:
    from plexd_server.store import DuckDBStore
    from plexd_server.store.duckdb.answering import Answering
    from plexd_server.store.duckdb.tables import Tables

__all__ = ["close_tables", "tables_of"]


def tables_of(store: DuckDBStore) -> Tables:
    """The tables, on whichever thread they are used."""
    tables = _answering(store).tables
    assert tables is not None
    return tables


def close_tables(store: DuckDBStore) -> None:
    """Close the tables' file while the thread that loads them does nothing else."""
    loader = _answering(store).loader
    assert loader is not None
    loader.run(tables_of(store).close)


def _answering(store: DuckDBStore) -> Answering:
    line = store._link._line
    assert line is not None
    assert isinstance(line._started, TablesThread)
    return line._started.answering
