"""The front of the embedded store: the port, the marks, and the questions to the tables."""

from plexd_server.store.embedded.files import FILE_NAME, JOURNAL_NAME
from plexd_server.store.embedded.launching import Apart
from plexd_server.store.embedded.store import DuckDBStore

__all__ = ["FILE_NAME", "JOURNAL_NAME", "Apart", "DuckDBStore"]
