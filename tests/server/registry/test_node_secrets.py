"""A sealed value opens only with its key and at its place."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from plexd.clock import SystemClock
from plexd.nodeapi import decrypt_secret
from plexd_server.errors import NoNodeKey, RegistryError, SealError, StartError, UnknownSecret
from plexd_server.registry import Registry
from plexd_server.registry.master_key import MasterKey
from server.running import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, clock=SystemClock())
    yield made
    made.close()


def reopened(data_dir: Path) -> None:
    with closing(Registry(data_dir, clock=SystemClock())) as registry:
        registry.check_key()


def change(data_dir: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection:
        connection.execute(statement, parameters)
        connection.commit()


def sealed(data_dir: Path, node_id: str) -> Any:
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection:
        query = "SELECT sealed FROM secrets WHERE node_id = ? ORDER BY name"
        return connection.execute(query, (node_id,)).fetchone()[0]


def test_the_master_key_is_made_with_the_registry_for_its_owner_only(
    registry: Registry, tmp_path: Path
) -> None:
    registry.check_key()

    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("*.key*")) == ["master.key"]


def test_a_secret_is_stored_sealed_and_its_node_can_open_it(
    registry: Registry, tmp_path: Path
) -> None:
    key = registry.create_node("n1").node_secret_key
    assert registry.secrets.set("n1", "s", "geheim ✓") == 1
    assert registry.secrets.set("n1", "s", "geheimer") == 2

    made = registry.secrets.envelope("n1", "s")
    assert decrypt_secret(key.encode(), made.ciphertext, made.nonce) == "geheimer"
    assert made.version == 2
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"geheim" not in kept


def test_a_sealed_value_moved_to_another_row_does_not_open(
    registry: Registry, tmp_path: Path
) -> None:
    for node_id in ("n1", "n2"):
        registry.create_node(node_id)
        registry.secrets.set(node_id, "s", f"of {node_id}")
    change(tmp_path, "UPDATE secrets SET sealed = ? WHERE node_id = 'n1'", sealed(tmp_path, "n2"))

    with pytest.raises(SealError, match="secrets n1 s 1 does not open"):
        registry.secrets.envelope("n1", "s")


def test_a_nodes_key_moved_to_another_node_does_not_open(
    registry: Registry, tmp_path: Path
) -> None:
    for node_id in ("n1", "n2"):
        registry.create_node(node_id)
    registry.secrets.set("n1", "s", "v")
    keys = "SELECT sealed_key FROM nodes WHERE node_id = 'n2'"
    change(tmp_path, f"UPDATE nodes SET sealed_key = ({keys}) WHERE node_id = 'n1'")

    with pytest.raises(SealError):
        registry.secrets.envelope("n1", "s")


def test_an_older_version_put_back_does_not_open(registry: Registry, tmp_path: Path) -> None:
    registry.create_node("n1")
    registry.secrets.set("n1", "s", "old")
    old = sealed(tmp_path, "n1")
    registry.secrets.set("n1", "s", "new")
    change(tmp_path, "UPDATE secrets SET sealed = ?", old)

    with pytest.raises(SealError):
        registry.secrets.envelope("n1", "s")


@pytest.mark.parametrize("damage", [b"", b"\0" * 12, b"\0" * 40])
def test_a_damaged_value_does_not_open(registry: Registry, tmp_path: Path, damage: bytes) -> None:
    registry.create_node("n1")
    registry.secrets.set("n1", "s", "v")
    change(tmp_path, "UPDATE secrets SET sealed = ?", damage)

    with pytest.raises(SealError):
        registry.secrets.envelope("n1", "s")


def test_a_missing_key_is_reported_with_a_remedy_and_none_is_made(
    registry: Registry, tmp_path: Path
) -> None:
    registry.close()
    (tmp_path / "master.key").unlink()

    with pytest.raises(StartError, match=r"master\.key is missing, .* from a backup"):
        reopened(tmp_path)
    assert not (tmp_path / "master.key").exists()
    assert (
        "master.key is missing"
        in command("node", "list", "--data-dir", tmp_path, check=False).stderr
    )


@pytest.mark.slow
def test_a_key_that_did_not_seal_the_registry_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    registry.close()
    (tmp_path / "master.key").write_text("00" * 32)

    with pytest.raises(StartError, match="is not the key that sealed"):
        reopened(tmp_path)
    done = command("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("text", ["", "short", "zz" * 32, "00" * 31, "00" * 200])
def test_a_key_file_without_a_key_is_refused(registry: Registry, tmp_path: Path, text: str) -> None:
    registry.close()
    (tmp_path / "master.key").write_text(text)

    with pytest.raises(StartError, match="is no master key"):
        reopened(tmp_path)


def test_a_key_file_that_others_can_read_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.close()
    (tmp_path / "master.key").chmod(0o644)

    with pytest.raises(StartError, match=r"chmod 600 .*master\.key"):
        reopened(tmp_path)


def test_a_key_that_another_process_made_is_not_replaced(tmp_path: Path) -> None:
    first, second = MasterKey(tmp_path / "master.key"), MasterKey(tmp_path / "master.key")
    first.make()
    before = (tmp_path / "master.key").read_text()
    second.make()

    assert (tmp_path / "master.key").read_text() == before
    assert second.open(first.seal("x", "a"), "a") == "x"


def test_a_node_of_version_1_has_no_key_until_it_is_rotated(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        connection.execute(
            "CREATE TABLE nodes (node_id VARCHAR(63) NOT NULL, mesh_ip VARCHAR(45) NOT NULL, "
            "token_hash BLOB NOT NULL, created_at DATETIME NOT NULL, PRIMARY KEY (node_id), "
            "UNIQUE (token_hash))"
        )
        row = ("n1", "10.0.0.1", b"\1" * 32, "2026-01-02 03:04:05.000006")
        connection.execute("INSERT INTO nodes VALUES (?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()

    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        assert registry.holder_of_token(b"\1" * 32) == ("n1", "node")
        (node,) = registry.nodes()
        assert (node.mesh_ip, node.created_at.year, node.has_key) == ("10.0.0.1", 2026, False)
        registry.secrets.set("n1", "s", "v")
        with pytest.raises(NoNodeKey, match="node rotate"):
            registry.secrets.envelope("n1", "s")
        rotated = command("node", "rotate", "n1", "--data-dir", tmp_path)
        assert "node_secret_key" in rotated.stdout
        assert registry.secrets.envelope("n1", "s").key == "s"
    reopened(tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "a b", "ä", "x" * 129])
def test_a_name_outside_the_allow_list_is_refused(registry: Registry, name: str) -> None:
    registry.create_node("n1")

    with pytest.raises(RegistryError, match="cannot name a secret"):
        registry.secrets.set("n1", name, "v")


@pytest.mark.parametrize("value", ["", "x" * 16_385, "ä" * 8_193])
def test_a_secret_of_the_wrong_length_is_refused(registry: Registry, value: str) -> None:
    registry.create_node("n1")

    with pytest.raises(RegistryError, match="a secret holds"):
        registry.secrets.set("n1", "s", value)


def test_a_deleted_secret_is_gone(registry: Registry) -> None:
    registry.create_node("n1")
    registry.secrets.set("n1", "s", "v")
    registry.secrets.delete("n1", "s")

    for gone in (registry.secrets.envelope, registry.secrets.delete):
        with pytest.raises(UnknownSecret):
            gone("n1", "s")
