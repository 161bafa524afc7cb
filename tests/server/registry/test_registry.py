from __future__ import annotations

import base64
import os
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock
from plexd_server.errors import NodeConflict, RegistryError, StartError, TokenRefused
from plexd_server.registry import NODE, Applicant, Registry, hash_token, is_node_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, clock=SystemClock())
    yield made
    made.close()


def test_a_node_is_known_by_its_token_from_then_on(registry: Registry, tmp_path: Path) -> None:
    made = registry.create_node("n1", mesh_ip="10.0.0.1")

    second = Registry(tmp_path, clock=SystemClock())
    assert second.holder_of_token(hash_token(made.auth_token)) == ("n1", NODE)
    assert [(node.node_id, node.mesh_ip) for node in second.nodes()] == [("n1", "10.0.0.1")]
    second.close()


def test_two_spellings_of_an_address_are_one_for_a_node_made_by_hand(registry: Registry) -> None:
    assert registry.create_node("n1", mesh_ip="FD00:0::2").mesh_ip == "fd00::2"

    with pytest.raises(NodeConflict, match="fd00::2 is that of node n1"):
        registry.create_node("n2", mesh_ip="fd00::0:2")
    with pytest.raises(ValueError, match="zone"):
        registry.create_node("n2", mesh_ip="fd00::2%x")


def test_a_clock_step_neither_shuts_a_node_out_nor_lets_a_revoked_one_in(tmp_path: Path) -> None:
    clock = ManualClock()
    with closing(Registry(tmp_path, clock=clock)) as registry:
        stays, goes = registry.create_node("stays"), registry.create_node("goes")
        token, _ = registry.tokens.create(uses=1, expires_in=timedelta(hours=1))
        enrolled = registry.enrol(Applicant(token, KEY, "new", {}))
        registry.revoke_node("goes")
        for years in (80, -110, 30):
            clock.step(timedelta(days=365 * years))

            assert registry.holder_of_token(hash_token(stays.auth_token)) == ("stays", NODE)
            assert registry.holder_of_token(hash_token(enrolled.auth_token)) is not None
            assert registry.holder_of_token(hash_token(goes.auth_token)) is None
            with pytest.raises(TokenRefused):
                registry.enrol(Applicant(token, KEY, "another", {}))


def test_every_node_gets_secrets_of_its_own(registry: Registry) -> None:
    one, two = registry.create_node("n1"), registry.create_node("n2")

    assert one.auth_token != two.auth_token
    assert one.node_secret_key != two.node_secret_key
    assert len(one.node_secret_key.encode("ascii")) == 32
    assert one.node_secret_key.isalnum()


def test_neither_token_nor_secret_key_is_kept(registry: Registry, tmp_path: Path) -> None:
    made = registry.create_node("n1")
    registry.close()

    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert made.auth_token.encode() not in kept
    assert made.node_secret_key.encode() not in kept
    assert hash_token(made.auth_token) in kept


def test_the_file_is_for_its_owner_only(registry: Registry, tmp_path: Path) -> None:
    mode = (tmp_path / "registry.db").stat().st_mode

    assert stat.S_IMODE(mode) == 0o600
    assert registry.node("n1") is None


def test_a_node_id_can_be_used_once(registry: Registry) -> None:
    registry.create_node("n1")

    with pytest.raises(RegistryError, match="'n1' exists already"):
        registry.create_node("n1")


@pytest.mark.parametrize(
    ("node_id", "allowed"),
    [
        ("a", True),
        ("Web-1.example_2", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        (".", False),
        ("..", False),
        ("-a", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("a\x00", False),
        ("ä", False),
        ("а", False),  # noqa: RUF001 -- the Cyrillic one is the point
        ("'; DROP TABLE nodes; --", False),
    ],
)
def test_node_ids_follow_the_allow_list(registry: Registry, node_id: str, allowed: bool) -> None:
    assert is_node_id(node_id) is allowed
    if not allowed:
        with pytest.raises(RegistryError, match="cannot name a node"):
            registry.create_node(node_id)


def test_a_damaged_registry_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"no database" * 500)

    with pytest.raises(StartError, match=r"registry\.db is damaged .*backup"):
        Registry(tmp_path, clock=SystemClock())


def test_a_registry_with_a_newer_number_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.close()
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StartError, match="newer plexd-server"):
        Registry(tmp_path, clock=SystemClock())


def pruned(registry: Registry, node_id: str) -> None:
    registry.create_node(node_id)
    registry.revoke_node(node_id)
    registry.prune(SystemClock().now() + timedelta(days=1))
    assert registry.node(node_id) is None


def enrol(registry: Registry, hostname: str, node_id: str = "") -> str:
    hour = timedelta(hours=1)
    token, _ = registry.tokens.create(uses=1, expires_in=hour, node_id=node_id)
    key = base64.b64encode(os.urandom(32)).decode()
    return registry.enrol(Applicant(token, key, hostname, {})).node_id


def test_a_stranger_with_the_hostname_of_a_node_that_is_gone_gets_another_id(
    registry: Registry,
) -> None:
    pruned(registry, "payroll")

    assert enrol(registry, "payroll") == "payroll-2"
    pruned(registry, "payroll-3")
    assert enrol(registry, "payroll") == "payroll-4"


def test_a_token_made_for_a_node_that_is_gone_lets_it_in_again(registry: Registry) -> None:
    pruned(registry, "payroll")

    assert enrol(registry, "new-disk", node_id="payroll") == "payroll"
    registry.revoke_node("payroll")
    assert enrol(registry, "payroll") == "payroll-2"
    assert enrol(registry, "payroll", node_id="payroll") == "payroll"


def test_the_id_of_a_node_that_is_gone_is_not_made_by_hand_and_the_way_back_is_named(
    registry: Registry,
) -> None:
    pruned(registry, "payroll")

    with pytest.raises(NodeConflict, match=r"token create --node payroll$"):
        registry.create_node("payroll")


def test_ids_that_have_points_are_kept_although_the_registry_never_knew_them(
    registry: Registry, tmp_path: Path
) -> None:
    registry.create_node("n1")
    for _ in range(2):  # at each start
        registry.reserve(["n1", "of-an-older-registry"])

    with closing(Registry(tmp_path, clock=SystemClock())) as second:
        assert enrol(second, "of-an-older-registry") == "of-an-older-registry-2"
        assert enrol(second, "n1") == "n1-2"


def test_a_node_whose_identity_was_never_seen_leaves_its_id_free(registry: Registry) -> None:
    registry.create_node("n1")
    registry.remove_node("n1")

    assert enrol(registry, "n1") == "n1"
