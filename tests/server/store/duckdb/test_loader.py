"""The loader: what it reads is in the tables once, whatever fails in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plexd.clock import SystemClock
from plexd_server.errors import StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.store import Report
from plexd_server.store.duckdb import loader as loader_module
from plexd_server.store.duckdb.loader import Loader
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.journal import TRIAL, Journal, Record, encode_record
from support.points import EXAMPLE, NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def records(count: int) -> list[bytes]:
    """Records of three points each."""
    return [encode_record(Record.of(Report("n1", EXAMPLE, NOW), EXAMPLE))] * count


class ScriptedTables:
    """Keeps which chunks it got; fails as often as it is told to."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, int, int]] = []
        self.failures = 0
        self.reported: list[int] = []

    def load(self, chunk: Chunk) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no more")
        self.chunks.append((chunk.after, chunk.upto, chunk.weight))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal")
    assert list(made.replay(0)) == []
    return made


@pytest.fixture
def tables() -> ScriptedTables:
    return ScriptedTables()


@pytest.fixture
def follow(
    tmp_path: Path, tables: ScriptedTables, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Loader]]:
    monkeypatch.setattr(loader_module, "_RETRY_SECONDS", 0.01)
    made: list[Loader] = []

    def begin(position: int) -> Loader:
        faults = FaultLog("filling", SystemClock())
        directory = tmp_path / "journal"
        made.append(Loader(directory, position, tables.load, tables.reported.append, faults))
        return made[-1]

    yield begin
    for loader in made:
        loader.abandon()


def test_what_is_durable_is_loaded_at_once_when_it_is_asked_for(
    journal: Journal, tables: ScriptedTables, follow: Callable[[int], Loader]
) -> None:
    journal.append(records(3))
    loader = follow(1)
    loader.flush(2)
    loader.flush(3)

    assert tables.chunks == [(1, 2, 3), (2, 3, 3)]
    assert tables.reported == [2, 3]


def test_large_chunks_are_loaded_without_being_asked_for(
    journal: Journal,
    tables: ScriptedTables,
    follow: Callable[[int], Loader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader_module, "_CHUNK_POINTS", 6)
    journal.append(records(5))
    loader = follow(0)
    loader.flush(5)

    assert tables.chunks == [(0, 2, 6), (2, 4, 6), (4, 5, 3)]


def test_a_chunk_that_fails_is_loaded_again_whole(
    journal: Journal,
    tables: ScriptedTables,
    follow: Callable[[int], Loader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables.failures = 2
    journal.append([*records(1), TRIAL, *records(1)])
    loader = follow(0)
    for _ in range(2):
        with pytest.raises(StoreError, match="not in their tables yet"):
            loader.flush(3)
    loader.flush(3)

    assert tables.chunks == [(0, 3, 7)]
    assert [record.message for record in caplog.records] == [
        "the store fails", "the store works again"
    ]  # fmt: skip


def test_a_record_that_cannot_be_read_is_said_and_read_again(
    tmp_path: Path,
    journal: Journal,
    tables: ScriptedTables,
    follow: Callable[[int], Loader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal.append(records(2))
    (segment,) = (tmp_path / "journal").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1])
    loader = follow(0)
    with pytest.raises(StoreError):
        loader.flush(2)
    assert "record 2 cannot be read" in vars(caplog.records[0])["error"]

    segment.write_bytes(whole)
    loader.flush(2)
    assert tables.chunks == [(0, 2, 6)]


def test_a_task_runs_between_two_loads_and_its_error_is_its_callers(
    journal: Journal, tables: ScriptedTables, follow: Callable[[int], Loader]
) -> None:
    journal.append(records(1))
    loader = follow(0)
    assert loader.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        loader.run(lambda: 1 / 0)
    loader.flush(1)
    assert loader.close(1) == 1
    assert tables.chunks == [(0, 1, 3)]


def test_the_end_loads_what_is_durable_and_an_abandoned_one_does_not(
    journal: Journal, tables: ScriptedTables, follow: Callable[[int], Loader]
) -> None:
    journal.append(records(2))
    assert follow(0).close(2) == 2
    follow(0).abandon()
    tables.failures = 1
    assert follow(0).close(2) == 0

    assert tables.chunks == [(0, 2, 6)]


def test_the_tables_load_no_record_twice_and_leave_none_out(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "points.duckdb", "256MB", reading=FaultLog("t", SystemClock()))
    first, second, other = Chunk(0), Chunk(1), Chunk(0)
    record = Record.of(Report("n1", EXAMPLE, NOW), EXAMPLE)
    for chunk, numbers in ((first, (1,)), (second, (2,)), (other, (1, 2, 3))):
        for number in numbers:
            chunk.add(number, record)
    tables.load(first)
    tables.load(first)
    with pytest.raises(StoreError, match="record 1 is the last one, not 0"):
        tables.load(other)
    tables.load(second)

    assert tables.loaded_upto() == 2
    (count,) = tables.connection.execute("SELECT count(*) FROM points_system").fetchone() or (0,)
    assert count == 2
    tables.close()
