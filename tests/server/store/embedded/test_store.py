from __future__ import annotations

import asyncio
import os
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import duckdb
import msgspec
import pytest

from plexd.api import BatchName, Predecessor, Receipt
from plexd_server.errors import JournalDamaged, StartError, StoreBusy, StoreError
from plexd_server.store import DuckDBStore, Report
from plexd_server.store.duckdb import schema
from plexd_server.store.duckdb.opening import create_tables
from plexd_server.store.duckdb.rolling import Rollups
from plexd_server.store.duckdb.schema import SCHEMA_VERSION
from plexd_server.store.embedded import staging
from plexd_server.store.embedded.mark_cache import EPOCHS_IN_MEMORY
from plexd_server.store.journal import Journal
from plexd_server.store.marks import FOLDED
from support.embedded import close_tables, tables_of
from support.points import EPOCH, EXAMPLE, NOW

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


def test_a_file_that_is_no_database_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "points.duckdb"
    path.write_bytes(content := b"not a database" * 1000)

    with pytest.raises(StartError, match=r"points\.duckdb is damaged .* put a backup"):
        DuckDBStore(tmp_path)

    assert path.read_bytes() == content


async def test_damaged_blocks_are_refused_at_start(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(Report("n1", EXAMPLE, NOW))
    await store.aclose()
    path = tmp_path / "points.duckdb"
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(byte ^ 0x55 for byte in content[4096:])
    path.write_bytes(content)

    with pytest.raises(StartError, match="is damaged"):
        DuckDBStore(tmp_path)


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await DuckDBStore(tmp_path).aclose()
    with duckdb.connect(tmp_path / "points.duckdb") as connection:
        connection.execute("UPDATE meta SET value = ?", [str(SCHEMA_VERSION + 1)])

    with pytest.raises(StartError, match="newer plexd-server"):
        DuckDBStore(tmp_path)


def test_a_memory_limit_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--store-memory"):
        DuckDBStore(tmp_path, memory="much")


async def test_failing_tables_are_reported_and_in_the_end_hold_what_was_acknowledged(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    rename(store, "points_system", "elsewhere")

    assert not await is_duplicate(store, named(1))
    with pytest.raises(StoreError, match="cannot be read"):
        await store.latest("n1")
    with pytest.raises(StoreError, match="not in their tables yet"):
        await store.check()
    assert await is_duplicate(store, named(1))
    rename(store, "elsewhere", "points_system")
    await store.check()

    assert len(await store.latest("n1")) == 3
    assert count(store, "points_system") == 1
    await store.aclose()


async def test_what_waits_for_the_tables_is_bounded_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = DuckDBStore(tmp_path, max_pending_points=6)
    rename(store, "points_system", "elsewhere")
    for seq in (1, 2):
        await store.write(named(seq))

    with pytest.raises(StoreBusy):
        await store.write(named(3))

    rename(store, "elsewhere", "points_system")
    await store.check()
    assert not await is_duplicate(store, named(3))
    await store.aclose()
    said = [record.message for record in caplog.records if vars(record)["what"] == "following"]
    assert said == ["the store fails", "the store works again"]


async def test_what_a_store_could_not_put_into_its_tables_the_next_one_does(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(named(1))
    await store.check()
    await store.latest("n1")
    rename(store, "points_system", "elsewhere")
    await store.write(named(2))
    await store.aclose()
    with duckdb.connect(tmp_path / "points.duckdb") as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO points_system")

    store = DuckDBStore(tmp_path)
    assert await is_duplicate(store, named(2))
    assert (await store.ledger("n1")).received == 6
    assert count(store, "points_system") == 2
    await store.aclose()


async def test_a_copy_of_a_running_store_has_what_was_acknowledged_once(tmp_path: Path) -> None:
    """As after a kill, with some records in the tables and others in the journal only."""
    (tmp_path / "d").mkdir()
    store = DuckDBStore(tmp_path / "d")
    await store.write(named(1))
    await store.latest("n1")
    await store.write(named(2))
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    await store.aclose()

    copy = DuckDBStore(tmp_path / "copy")
    assert [await is_duplicate(copy, named(seq)) for seq in (1, 2, 3)] == [True, True, False]
    assert (await copy.ledger("n1")).received == 9
    assert count(copy, "points_system") == 3
    await copy.aclose()


async def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    await DuckDBStore(tmp_path).aclose()
    journal = Journal(tmp_path / "journal")
    assert list(journal.replay(0)) == []
    journal.append([b"no record"])
    journal.close()

    with pytest.raises(JournalDamaged, match="record 1"):
        DuckDBStore(tmp_path)


@pytest.mark.slow
async def test_the_space_of_expired_points_is_used_again_even_during_reads(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    sizes: list[int] = []
    for year in range(2000, 2008):
        insert(store, f"{year}-01-01", rows=250_000)
        newest = NOW.replace(year=year, month=1, day=7)
        expiring = asyncio.create_task(store.expire(newest, timedelta(days=30)))
        while not expiring.done():
            assert len(await store.latest("n1")) == 1
        assert await expiring == (250_000 if year > 2000 else 0)
        sizes.append((tmp_path / "points.duckdb").stat().st_size)

    assert count(store, "points_latency") == 250_000
    # Reads keep what was deleted for a while; eight times as much would be none of it used again.
    assert max(sizes) < 5 * sizes[0], sizes
    assert not (tmp_path / "points.duckdb.wal").exists()
    await store.aclose()


def insert(store: DuckDBStore, day: str, *, rows: int) -> None:
    """Insert many points, a second apart, as if from before there were receipts."""
    tables_of(store).connection.execute(
        f"INSERT INTO points_latency SELECT 'n1', TIMESTAMP '{day}' + to_seconds(range), "
        f"now(), 'p', hash(range) & 1073741823 FROM range({rows})"
    )
    tables_of(store).connection.execute(
        f"UPDATE meta SET value = value::BIGINT + {rows} WHERE key = 'unaccounted'"
    )


async def test_the_largest_numbers_a_node_can_send_do_not_stop_the_loader(tmp_path: Path) -> None:
    """One record that does not fit a table would stop the records of all nodes."""
    store = DuckDBStore(tmp_path)
    largest, parts = 2**63 - 1, 2**31 - 1
    after = Predecessor("f" * 32, largest, largest)
    for epoch in (EPOCH, "e" * 32):
        for first in (1, largest - 5, largest - 2):
            name = BatchName(epoch, first, 3)
            await store.write(Report("n1", EXAMPLE, NOW, name, after, largest, ahead=(2,)))
        rejected = BatchName(EPOCH[::-1], largest - parts + 1, parts)
        await store.write(Report("n1", (), NOW, rejected, after, largest, is_rejected=True))

    await store.check()
    ledger = await store.ledger("n1")
    assert (ledger.received, ledger.ahead) == (12, 6)
    assert ledger.gap + ledger.evicted > largest
    await store.aclose()


def test_a_journal_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")

    with pytest.raises(StartError, match=r"cannot read the journal .*journal: File exists"):
        DuckDBStore(tmp_path)


async def test_rejections_that_wait_for_the_tables_are_bounded_and_outlive_the_store(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path, max_pending_points=2)
    rename(store, "receipts", "elsewhere")
    for seq in (1, 2):
        await store.write(rejection(seq))
    with pytest.raises(StoreBusy):
        await store.write(rejection(3))
    await store.aclose()
    with duckdb.connect(tmp_path / "points.duckdb") as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO receipts")

    store = DuckDBStore(tmp_path)
    assert (await store.ledger("n1")).rejected == 6
    await store.aclose()


def rejection(number: int) -> Report:
    name = BatchName(EPOCH, 3 * number - 2, 3)
    return Report("n1", (), NOW, name, Predecessor(), is_rejected=True)


def rename(store: DuckDBStore, table: str, name: str) -> None:
    tables_of(store).connection.execute(f"ALTER TABLE {table} RENAME TO {name}")


def count(store: DuckDBStore, table: str) -> int:
    # All rows: an unread rest keeps a transaction open, for which a checkpoint waits.
    rows = tables_of(store).connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(rows[0][0])


async def test_the_database_cannot_reach_outside_itself(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)

    for statement in ("SELECT * FROM read_text('/etc/hostname')", "SET threads = 8"):
        with pytest.raises(duckdb.Error):
            tables_of(store).connection.execute(statement)

    await store.aclose()


def named(number: int, epoch: str = EPOCH) -> Report:
    """The ``number``-th batch of an epoch, of three points like all of them."""
    name = BatchName(epoch, 3 * number - 2, 3)
    return Report("n1", EXAMPLE, NOW, name, Predecessor())


async def is_duplicate(store: DuckDBStore, report: Report) -> bool:
    return (await store.write(report)).receipt.duplicate


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM receipts",
        "DELETE FROM receipts WHERE ordinal = (SELECT max(ordinal) FROM receipts)",
        "UPDATE receipts SET received = 4 WHERE ordinal = (SELECT max(ordinal) FROM receipts)",
        "DELETE FROM points_latency",
        "INSERT INTO points_latency SELECT * FROM points_latency",
        "DELETE FROM meta WHERE key = 'unaccounted'",
        "DROP TABLE receipts",
    ],
)
async def test_a_store_whose_receipts_do_not_fit_its_points_is_refused(
    tmp_path: Path, damage: str
) -> None:
    store = DuckDBStore(tmp_path)
    for seq in (1, 2):
        await store.write(named(seq))
    await store.write(Report("n2", EXAMPLE, NOW))
    await store.aclose()
    DuckDBStore(tmp_path).close()
    with duckdb.connect(tmp_path / "points.duckdb") as connection:
        connection.execute(damage)

    with pytest.raises(StartError, match=r"is damaged .* put a backup"):
        DuckDBStore(tmp_path)


class FaultyConnection:
    """Fails at the n-th step of a transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, steps: int) -> None:
        self.connection = connection
        self.steps = steps

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise duckdb.IOException("no more")

    def begin(self) -> None:
        self._step()
        self.connection.begin()

    def execute(self, statement: str, *parameters: Any) -> Any:
        if not statement.startswith(("SHOW", "SELECT")):
            self._step()
        return self.connection.execute(statement, *parameters)

    def commit(self) -> None:
        self._step()
        self.connection.commit()


async def test_tables_that_are_cut_off_while_being_made_are_made_by_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "points.duckdb"
    steps = len(list(schema.create_statements())) + 2
    for allowed in (0, 1, 5, steps - 1):
        path.unlink(missing_ok=True)
        with duckdb.connect(path) as connection:
            faulty: Any = FaultyConnection(connection, allowed)
            with pytest.raises(duckdb.IOException):
                create_tables(faulty)
        with duckdb.connect(path) as opened:
            assert not opened.execute("SHOW TABLES").fetchall()
        store = DuckDBStore(tmp_path)
        assert not await is_duplicate(store, named(1))
        await store.aclose()


async def test_epochs_that_are_no_longer_in_memory_are_still_known(tmp_path: Path) -> None:
    epochs = [f"{number:032x}" for number in range(3 * EPOCHS_IN_MEMORY)]
    store = DuckDBStore(tmp_path)
    for epoch in epochs:
        assert not await is_duplicate(store, named(1, epoch))
    assert (await store.ledger("n1")).received == 3 * len(epochs)
    for seq in (1, 2):
        assert len(store._marks.of_node("n1")) == EPOCHS_IN_MEMORY
        assert await is_duplicate(store, named(seq, epochs[0])) == (seq == 1)
        assert await is_duplicate(store, named(seq, epochs[-1])) == (seq == 1)
        await store.aclose()
        store = DuckDBStore(tmp_path)
    for epoch in epochs:
        assert await is_duplicate(store, named(1, epoch))

    assert (await store.ledger("n1")).received == 3 * (len(epochs) + 2)
    await store.aclose()


async def test_a_node_keeps_a_bounded_number_of_marks_and_no_point_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MARKS_OF_NODE", 20)
    monkeypatch.setattr(staging, "_FOLDED_AT_ONCE", 7)
    epochs = [f"{number:032x}" for number in range(100)]
    store = DuckDBStore(tmp_path)
    for number, epoch in enumerate(epochs):
        assert not await is_duplicate(store, later(number, epoch))
    old: list[Receipt] = []
    for _ in range(2):
        marks = store._marks.all_of_node("n1").values()
        assert len(marks) == store._marks.count("n1") <= 21
        (folded,) = [mark for mark in marks if mark.epoch == FOLDED]
        assert folded.floor is not None
        old.append((await store.write(later(0, epochs[0]))).receipt)
        assert await is_duplicate(store, later(99, epochs[99]))
        await store.aclose()
        store = DuckDBStore(tmp_path)
    ledger = await store.ledger("n1")
    newer = later(101, epochs[1])

    assert (ledger.received, ledger.rejected) == (300, 3)
    assert "no longer knows whether they came" in old[0].reason
    assert [(receipt.rejected, receipt.duplicate) for receipt in old] == [(3, False), (0, True)]
    assert (await store.write(newer)).receipt.accepted == 3
    await store.aclose()


def later(number: int, epoch: str) -> Report:
    """Three points of an epoch, so many minutes later."""
    moment = NOW + timedelta(minutes=number)
    points = [msgspec.structs.replace(point, timestamp=moment) for point in EXAMPLE]
    return Report("n1", points, NOW, BatchName(epoch, 1, 3), Predecessor())


async def test_a_failed_write_leaves_no_mark(
    tmp_path: Path, files_may_grow_to: Callable[[int], None]
) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(named(1))
    incompressible = msgspec.structs.replace(named(2), body=os.urandom(1 << 20))
    files_may_grow_to(1 << 18)
    with pytest.raises(StoreError, match="could not be stored"):
        await store.write(incompressible)
    with pytest.raises(StoreError, match="could not be stored"):
        await store.check()

    assert not await is_duplicate(store, named(2))
    assert await is_duplicate(store, named(1))
    assert await is_duplicate(store, named(2))
    await store.check()
    await store.aclose()


async def test_a_clock_that_was_put_back_changes_neither_marks_nor_their_order(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(named(1))
    years_ago = NOW.replace(year=1999)
    await store.write(msgspec.structs.replace(named(2), received_at=years_ago))
    await store.write(msgspec.structs.replace(named(1, "f" * 32), received_at=years_ago))
    await store.aclose()

    store = DuckDBStore(tmp_path)
    assert await is_duplicate(store, named(2))
    assert not await is_duplicate(store, named(3))
    assert (await store.ledger("n1")).received == 12
    await store.aclose()


@pytest.mark.slow
async def test_what_a_damaged_log_of_the_database_lost_comes_again_from_the_journal(
    tmp_path: Path,
) -> None:
    (tmp_path / "d").mkdir()
    store = DuckDBStore(tmp_path / "d")
    for seq in range(1, 6):
        await store.write(named(seq))
        await store.latest("n1")
    shutil.copytree(tmp_path / "d", tmp_path / "kept")
    await store.aclose()
    log = (tmp_path / "kept" / "points.duckdb.wal").read_bytes()
    damaged = [log[:cut] for cut in range(0, len(log), 997)]
    damaged += [_flipped(log, place) for place in range(3, len(log), 997)]
    outcomes: set[int | None] = set()
    for content in [b"", *damaged]:
        (tmp_path / "kept" / "points.duckdb.wal").write_bytes(content)
        outcomes.add(await _received_after(tmp_path / "kept", tmp_path / "try"))

    assert outcomes == {None, 15}


@pytest.mark.slow
async def test_no_damage_of_the_database_shows_other_points(tmp_path: Path) -> None:
    """Damage at a place that the start does not read is found by the first query that reads it."""
    kept, directory = tmp_path / "kept", tmp_path / "try"
    kept.mkdir()
    for seqs in ((1, 2, 3), (4, 5)):
        store = DuckDBStore(kept)
        for seq in seqs:
            await store.write(named(seq))
        await store.aclose()
    whole = (kept / "points.duckdb").read_bytes()
    places = [*range(0, 12288, 1021), *range(12288, len(whole), 70001)]
    damaged = [_flipped(whole, place) for place in places]
    damaged += [whole[:length] for length in range(1, len(whole), 200_003)]
    good = await _answers(whole, directory)
    found = [await _answers(content, directory) for content in damaged]

    assert good is not None
    assert all(answers in (None, good) for answers in found)
    assert None in found


async def _answers(content: bytes, directory: Path) -> tuple[object, ...] | None:
    """Return what a store on that database answers about the node; None if it refuses to."""
    _replace(directory, content)
    try:
        store = DuckDBStore(directory)
    except StartError:
        return None
    try:
        return await store.ledger("n1"), await store.latest("n1"), count(store, "points_system")
    except StoreError:
        return None
    finally:
        await store.aclose()


def _replace(directory: Path, database: bytes) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "points.duckdb").write_bytes(database)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


async def _received_after(damaged: Path, directory: Path) -> int | None:
    """Return how many points a store on a copy has receipts for; None if it refuses to start."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(damaged, directory)
    try:
        store = DuckDBStore(directory)
    except StartError:
        return None
    received = (await store.ledger("n1")).received
    assert count(store, "points_system") * 3 == received
    await store.aclose()
    return received


class FaultyCursor:
    """Passes everything on to a cursor, except a commit: it ends as if its fsync failed."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self.cursor = cursor

    def commit(self) -> None:
        self.cursor.rollback()
        raise duckdb.FatalException("FATAL Error: fsync failed!")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


async def test_after_a_failed_fsync_the_file_is_opened_again_and_nothing_is_doubled(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(named(1))
    await store.latest("n1")
    failing: Any = FaultyCursor(tables_of(store)._writing)
    tables_of(store)._writing = failing
    assert not await is_duplicate(store, named(2))
    with pytest.raises(StoreError, match="cannot be read"):
        await store.latest("n1")

    await store.check()

    assert [await is_duplicate(store, named(seq)) for seq in (1, 2, 3)] == [True, True, False]
    assert (await store.ledger("n1")).received == 9
    assert count(store, "points_system") == 3
    await store.aclose()


async def test_points_are_loaded_also_while_no_rollups_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> NoReturn:
        raise MemoryError("too many readings")

    monkeypatch.setattr(Rollups, "_settled", fail)
    store = DuckDBStore(tmp_path)
    for seq in (1, 2):
        await store.write(named(seq))
        await store.check()
    monkeypatch.undo()

    assert count(store, "points_system") == 2
    await store.aclose()
    assert "rolling" in {getattr(record, "what", "") for record in caplog.records}


async def test_a_file_that_does_not_open_is_tried_again(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    close_tables(store)
    content = (tmp_path / "points.duckdb").read_bytes()
    (tmp_path / "points.duckdb").write_bytes(b"not a database" * 1000)
    for seq in (1, 2):
        assert not await is_duplicate(store, named(seq))
        with pytest.raises(StoreError):
            await store.check()
    (tmp_path / "points.duckdb").write_bytes(content)

    await store.check()
    assert await is_duplicate(store, named(2))
    assert count(store, "points_system") == 2
    await store.aclose()
