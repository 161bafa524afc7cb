from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from plexd_server.errors import StartError, StoreError
from plexd_server.store import Delivery, DuckDBStore
from plexd_server.store.schema import SCHEMA_VERSION
from support.points import EXAMPLE, NOW

if TYPE_CHECKING:
    from pathlib import Path


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
    with pytest.raises(StoreError, match="last points could not be stored"):
        await store.check()
    await store.write(Delivery("n1", EXAMPLE[1:], NOW))
    await store.check()

    await store.aclose()


async def test_the_database_cannot_reach_outside_itself(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)

    for statement in ("SELECT * FROM read_text('/etc/hostname')", "SET threads = 8"):
        with pytest.raises(duckdb.Error):
            store._connection.execute(statement)

    await store.aclose()
