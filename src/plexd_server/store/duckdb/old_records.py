"""A journal that was written by an earlier release, or whose database is gone, into the tables.

Records of releases up to 0.1.0 do not say what was decided about them. It is decided again, as
those releases did with each start. All of it is one transaction, so that a kill leaves nothing half
done. The journal was bounded by 200,000 points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd_server.errors import JournalDamaged
from plexd_server.store.duckdb import queries
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.embedded.mark_cache import MarkCache
from plexd_server.store.embedded.staging import StagedReports
from plexd_server.store.journal import Follower, Record, decode_record
from plexd_server.store.port import Report

if TYPE_CHECKING:
    from pathlib import Path

    from plexd_server.store.duckdb.tables import Tables
    from plexd_server.store.marks import Mark


def load_all(tables: Tables, journal: Path, position: int, upto: int) -> None:
    """Load the records after ``position`` up to ``upto``, whoever wrote them.

    Raises `JournalDamaged`, and what DuckDB raises.
    """
    known = tables.read(lambda cursor: queries.read_known_marks(cursor, ""))
    staged = StagedReports(MarkCache(known, _LoadedMarks(tables)))
    chunk = Chunk(position)
    follower = Follower(journal, position)
    try:
        while follower.position < upto:
            found = _decoded(follower.next(), journal, follower.position)
            chunk.add(follower.position, _decided(found, staged))
    finally:
        follower.close()
    tables.load(chunk, is_first=True)


def _decoded(payload: bytes, journal: Path, number: int) -> Record | Report | None:
    try:
        return decode_record(payload)
    except ValueError as err:
        raise JournalDamaged(journal, f"record {number}: {err}") from err


def _decided(found: Record | Report | None, staged: StagedReports) -> Record | None:
    if isinstance(found, Report):
        return staged.add(found)[1]
    if found is not None:
        staged.replay(found)
    return found


class _LoadedMarks:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def find(self, node_id: str, epoch: str) -> Mark | None:
        return self._tables.read(lambda cursor: queries.read_mark(cursor, node_id, epoch))

    def of_node(self, node_id: str) -> list[Mark]:
        return self._tables.read(lambda cursor: queries.read_marks_of(cursor, node_id))
