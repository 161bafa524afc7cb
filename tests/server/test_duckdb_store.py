from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import duckdb
import msgspec
import pytest

from plexd.api import BatchName
from plexd_server.errors import StartError, StoreError
from plexd_server.store import Delivery, DuckDBStore, schema
from plexd_server.store.drafts import EPOCHS_IN_MEMORY
from plexd_server.store.opening import migrate
from plexd_server.store.schema import SCHEMA_VERSION
from support.points import EPOCH, EXAMPLE, NOW

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def test_a_file_that_is_no_database_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "points.duckdb"
    path.write_bytes(b"not a database" * 1000)

    with pytest.raises(StartError, match=r"points\.duckdb is damaged .* put a backup"):
        DuckDBStore(tmp_path)

    assert path.read_bytes().startswith(b"not a database")


async def test_damaged_blocks_are_refused_at_start(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(Delivery("n1", EXAMPLE, NOW))
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


async def test_a_store_that_fails_says_so_to_writers_and_readers(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store._connection.execute("DROP TABLE points_system")

    with pytest.raises(StoreError, match="could not be stored"):
        await store.write(Delivery("n1", EXAMPLE, NOW))
    with pytest.raises(StoreError, match="cannot be read"):
        await store.latest("n1")
    store._connection.execute("ALTER TABLE meta RENAME TO elsewhere")
    with pytest.raises(StoreError, match="last points could not be stored"):
        await store.check()
    store._connection.execute("ALTER TABLE elsewhere RENAME TO meta")
    await store.check()
    await store.write(Delivery("n1", EXAMPLE[1:], NOW))

    await store.aclose()


async def test_the_database_cannot_reach_outside_itself(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)

    for statement in ("SELECT * FROM read_text('/etc/hostname')", "SET threads = 8"):
        with pytest.raises(duckdb.Error):
            store._connection.execute(statement)

    await store.aclose()


def named(seq: int, epoch: str = EPOCH) -> Delivery:
    return Delivery("n1", EXAMPLE, NOW, name=BatchName(epoch, seq, 0, 3))


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM receipts",
        "DELETE FROM receipts WHERE ordinal = (SELECT max(ordinal) FROM receipts)",
        "UPDATE receipts SET received = received + 1 WHERE ordinal = 2",
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
    await store.write(Delivery("n2", EXAMPLE, NOW))
    await store.aclose()
    DuckDBStore(tmp_path)._close()
    with duckdb.connect(tmp_path / "points.duckdb") as connection:
        connection.execute(damage.replace("= 2", "= (SELECT max(ordinal) FROM receipts)"))

    with pytest.raises(StartError, match=r"is damaged .* put a backup"):
        DuckDBStore(tmp_path)


def make_version_1(path: Path) -> None:
    """A store as it was before there were receipts, with a point in it."""
    old = len(list(schema.create_statements())) - len(list(schema.upgrade_statements()))
    with duckdb.connect(path) as connection:
        for statement in list(schema.create_statements())[:old]:
            connection.execute(statement)
        connection.execute("INSERT INTO points_latency VALUES ('n1', now(), now(), 'p', 5)")


async def test_a_store_of_version_1_is_upgraded_and_keeps_its_points(tmp_path: Path) -> None:
    make_version_1(tmp_path / "points.duckdb")

    for _ in range(2):
        store = DuckDBStore(tmp_path)
        assert "p" in {point.peer_id for point in await store.latest("n1")}
        await store.write(named(1))
        await store.aclose()

    store = DuckDBStore(tmp_path)
    assert (await store.ledger("n1")).received == 3
    await store.aclose()


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


async def test_an_upgrade_that_fails_anywhere_leaves_the_old_store_or_the_new(
    tmp_path: Path,
) -> None:
    path = tmp_path / "points.duckdb"
    steps = len(list(schema.upgrade_statements())) + 2
    for allowed in range(steps + 1):
        path.unlink(missing_ok=True)
        make_version_1(path)
        connection = duckdb.connect(path)
        faulty: Any = FaultyConnection(connection, allowed)
        if allowed < steps:
            with pytest.raises(duckdb.IOException):
                migrate(faulty, path)
        else:
            migrate(faulty, path)
        connection.close()
        with duckdb.connect(path) as opened:
            (version,) = opened.execute("SELECT value FROM meta").fetchone() or ("",)
            tables = {name for (name,) in opened.execute("SHOW TABLES").fetchall()}
        assert (version == "2") == ("receipts" in tables) == (allowed == steps)
        store = DuckDBStore(tmp_path)
        assert len(await store.latest("n1")) == 1
        await store.aclose()


async def test_epochs_that_are_no_longer_in_memory_are_still_known(tmp_path: Path) -> None:
    epochs = [f"{number:032x}" for number in range(3 * EPOCHS_IN_MEMORY)]
    store = DuckDBStore(tmp_path)
    for epoch in epochs:
        assert not (await store.write(named(1, epoch))).duplicate
    for seq in (1, 2):
        assert len(store._marks.of_node("n1")) == EPOCHS_IN_MEMORY
        assert (await store.write(named(seq, epochs[0]))).duplicate == (seq == 1)
        assert (await store.write(named(seq, epochs[-1]))).duplicate == (seq == 1)
        await store.aclose()
        store = DuckDBStore(tmp_path)
    for epoch in epochs:
        assert (await store.write(named(1, epoch))).duplicate

    assert (await store.ledger("n1")).received == 3 * (len(epochs) + 2)
    await store.aclose()


async def test_a_failed_commit_leaves_no_mark_and_a_group_does_not_fail_for_one(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    store._connection.execute("ALTER TABLE points_system RENAME TO elsewhere")
    with pytest.raises(StoreError):
        await store.write(named(1))
    latency_only = msgspec.structs.replace(named(1), points=EXAMPLE[2:], node_id="n2")
    assert not (await store.write(latency_only)).duplicate
    assert (await store.ledger("n1")).received == 0
    store._connection.execute("ALTER TABLE elsewhere RENAME TO points_system")

    assert not (await store.write(named(1))).duplicate
    assert (await store.write(named(1))).duplicate
    await store.aclose()
    DuckDBStore(tmp_path)._close()


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
    assert (await store.write(named(2))).duplicate
    assert not (await store.write(named(3))).duplicate
    assert (await store.ledger("n1")).received == 12
    await store.aclose()


async def test_damage_to_the_log_is_refused_or_takes_points_and_receipts_alike(
    tmp_path: Path,
) -> None:
    (tmp_path / "d").mkdir()
    store = DuckDBStore(tmp_path / "d")
    for seq in range(1, 6):
        await store.write(named(seq))
    shutil.copytree(tmp_path / "d", tmp_path / "kept")
    await store.aclose()
    log = (tmp_path / "kept" / "points.duckdb.wal").read_bytes()
    outcomes: set[int | None] = set()
    spoilt = [log[:cut] for cut in range(0, len(log), 997)]
    spoilt += [_flipped(log, place) for place in range(3, len(log), 997)]
    for content in [b"", *spoilt]:
        (tmp_path / "kept" / "points.duckdb.wal").write_bytes(content)
        outcomes.add(await _received_after(tmp_path / "kept", tmp_path / "try"))

    assert outcomes <= {None, 0, 3, 6, 9, 12, 15}
    assert len(outcomes) > 1


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


async def _received_after(damaged: Path, directory: Path) -> int | None:
    """How many points a store opened on a copy has receipts for; None if it refuses to start."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(damaged, directory)
    try:
        store = DuckDBStore(directory)
    except StartError:
        return None
    received = (await store.ledger("n1")).received
    for seq in range(1, 6):
        assert (await store.write(named(seq))).duplicate == (3 * seq <= received)
    await store.aclose()
    return received


class FailingSync:
    """Passes all on to a cursor, but for a commit that ends as one whose fsync failed does."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self.cursor = cursor

    def commit(self) -> None:
        self.cursor.rollback()
        raise duckdb.FatalException("FATAL Error: fsync failed!")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


async def test_after_a_failed_fsync_the_file_is_opened_anew_and_nothing_is_doubled(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    await store.write(named(1))
    spoilt: Any = FailingSync(store._writing)
    store._writing = spoilt
    with pytest.raises(StoreError, match="could not be stored"):
        await store.write(named(2))
    with pytest.raises(StoreError, match="cannot be read"):
        await store.latest("n1")

    await store.check()

    assert (await store.write(named(1))).duplicate
    assert not (await store.write(named(2))).duplicate
    assert (await store.ledger("n1")).received == 6
    await store.aclose()


async def test_a_file_that_cannot_be_opened_anew_is_tried_again_with_each_report(
    tmp_path: Path,
) -> None:
    store = DuckDBStore(tmp_path)
    store._let_go()
    (tmp_path / "points.duckdb").rename(tmp_path / "elsewhere")
    (tmp_path / "points.duckdb").write_bytes(b"not a database" * 1000)
    for seq in (1, 2):
        with pytest.raises(StoreError, match="could not be stored"):
            await store.write(named(seq))
    (tmp_path / "elsewhere").rename(tmp_path / "points.duckdb")

    assert not (await store.write(named(1))).duplicate
    await store.check()
    await store.aclose()
