"""Looking into the tables of an embedded store whose tables are a thread of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd_server.store.embedded.launching import TablesThread

if TYPE_CHECKING:
    from plexd_server.store import DuckDBStore
    from plexd_server.store.duckdb.tables import Tables

__all__ = ["tables_of"]


def tables_of(store: DuckDBStore) -> Tables:
    """The tables, on whichever thread they are used."""
    line = store._link._line
    assert line is not None
    assert isinstance(line._started, TablesThread)
    tables = line._started.answering.tables
    assert tables is not None
    return tables
