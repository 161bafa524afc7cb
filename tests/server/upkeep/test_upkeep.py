"""The commands that work on a registry: tokens, nodes, secrets, pruning, and backups."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.clock import SystemClock
from plexd_server.errors import RegistryError, RegistryUnavailable
from plexd_server.registry import Applicant, Registry
from plexd_server.registry.ids import free_node_id
from server.running import Client, command, create_node, running, served
from support.points import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

KEY = "A" * 43 + "="
CANNOT_BE_SECRETS = [
    (b"", "there is nothing in"),
    (b"\n", "there is nothing in"),
    (b"\xff", "is not UTF-8 text"),
    (b"x" * 70_000, "a secret holds 1 to 16384 bytes"),
]


def run(data_dir: Path, *arguments: object) -> str:
    return command(*arguments, "--data-dir", data_dir).stdout


def refused(data_dir: Path, *arguments: object, status: int = 1) -> str:
    done = command(*arguments, "--data-dir", data_dir, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert done.stderr.startswith("plexd-server: ")
    return done.stderr


def listed(data_dir: Path, *arguments: object) -> Any:
    return json.loads(run(data_dir, *arguments, "--json"))


def change(data_dir: Path, statement: str) -> None:
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_token_is_listed_without_its_text_and_can_be_revoked(tmp_path: Path) -> None:
    token = run(tmp_path, "token", "create", "--uses", "3", "--expires", "2h").strip()
    (kept,) = listed(tmp_path, "token", "list")["tokens"]

    assert (kept["state"], kept["uses_left"], kept["node_id"]) == ("valid", 3, "")
    assert token not in run(tmp_path, "token", "list")
    revoked = command("token", "revoke", kept["token_id"], "--data-dir", tmp_path)
    assert revoked.stderr == f"token {kept['token_id']} is withdrawn\n"
    assert run(tmp_path, "token", "list") == ""
    assert "there is no token" in refused(tmp_path, "token", "revoke", kept["token_id"])


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--uses", "0"], 1, "1 to 100000 times"),
        (["--uses", "100001"], 1, "1 to 100000 times"),
        (["--node", "../x"], 1, "../x"),
        (["--node", "n1", "--uses", "2"], 1, "can be used once"),
        (["--uses", "many"], 2, "argument --uses: expected a whole number, found 'many'"),
        (["--expires", "soon"], 2, "--expires 'soon' is no duration, such as"),
        (["--expires", "0s"], 2, "--expires must be more than 0"),
        (["--expires", "4000d"], 2, "--expires '4000d' is too long, at most 3660d"),
    ],
)
def test_a_token_with_impossible_options_is_refused(
    tmp_path: Path, options: list[str], status: int, words: str
) -> None:
    assert words in refused(tmp_path, "token", "create", *options, status=status)


def test_a_secret_comes_from_a_file_and_never_from_the_command_line(tmp_path: Path) -> None:
    create_node(tmp_path / "d")
    file = tmp_path / "value"
    file.write_text("hush\n")

    run(tmp_path / "d", "secret", "set", "n1", "s", "--value-file", file)
    assert listed(tmp_path / "d", "secret", "list")["secrets"][0]["version"] == 1
    refused(tmp_path / "d", "secret", "set", "n1", "s", "hush", status=2)
    for content, words in CANNOT_BE_SECRETS:
        file.write_bytes(content)
        said = refused(tmp_path / "d", "secret", "set", "n1", "s", "--value-file", file)
        assert words in said
    assert "there is no node" in refused(tmp_path / "d", "secret", "list", "n2")
    deleted = command("secret", "delete", "n1", "s", "--data-dir", tmp_path / "d")
    assert deleted.stderr == "secret s of n1 is forgotten\n"
    assert "has no secret" in refused(tmp_path / "d", "secret", "delete", "n1", "s")


def test_a_node_is_shown_without_its_secrets(tmp_path: Path) -> None:
    made = create_node(tmp_path)
    shown = run(tmp_path, "node", "show", "n1")

    assert "secret key    sealed" in shown
    assert made["auth_token"] not in shown
    assert made["node_secret_key"] not in shown
    assert listed(tmp_path, "node", "show", "n1")["has_key"] is True
    assert "there is no node 'n2'" in refused(tmp_path, "node", "show", "n2")


def test_text_from_a_machine_cannot_control_a_terminal(tmp_path: Path) -> None:
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        token, _ = registry.tokens.create(uses=1, expires_in=timedelta(hours=1))
        registry.enrol(Applicant(token, KEY, "h\x1b[2J", {"os\x9b": "\x07"}))

    for arguments in (["node", "list"], ["node", "show", "h-2J"]):
        shown = run(tmp_path, *arguments)
        assert "h?[2J" in shown
        assert all(char.isprintable() or char == "\n" for char in shown)


def test_a_revoked_node_is_not_listed_and_its_secrets_are_deleted(tmp_path: Path) -> None:
    create_node(tmp_path)
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        registry.secrets.set("n1", "s", "v")
    revoked = command("node", "revoke", "n1", "--data-dir", tmp_path)

    assert revoked.stderr.startswith("node n1 is revoked and its secrets are forgotten; ")
    assert run(tmp_path, "node", "list") == ""
    assert "revoked" in run(tmp_path, "node", "list", "--all")
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        assert connection.execute("SELECT count(*) FROM secrets").fetchone() == (0,)
    assert "token create --node n1" in refused(tmp_path, "node", "rotate", "n1")


def test_pruning_deletes_what_ended_long_ago_and_nothing_else(tmp_path: Path) -> None:
    for node_id in ("old", "new", "stays"):
        create_node(tmp_path, node_id)
    for node_id in ("old", "new"):
        run(tmp_path, "node", "revoke", node_id)
    run(tmp_path, "token", "create")
    change(tmp_path, "UPDATE nodes SET revoked_at = '2020-01-01 00:00:00' WHERE node_id = 'old'")

    gone = listed(tmp_path, "prune", "--older-than", "30d")["removed"]

    assert gone == {"nodes": 1, "node tokens": 0, "bootstrap tokens": 0}
    names = {node["node_id"] for node in listed(tmp_path, "node", "list", "--all")["nodes"]}
    assert names == {"new", "stays"}
    assert len(listed(tmp_path, "token", "list")["tokens"]) == 1


def test_the_way_back_of_a_removed_node_is_said_and_works(tmp_path: Path) -> None:
    create_node(tmp_path, "payroll")
    revoked = command("node", "revoke", "payroll", "--data-dir", tmp_path)
    way_back = "plexd-server token create --node"
    assert f"{way_back} payroll" in revoked.stderr
    change(tmp_path, "UPDATE nodes SET revoked_at = '2020-01-01 00:00:00'")

    pruned = command("prune", "--data-dir", tmp_path)
    again = command("node", "create", "payroll", "--data-dir", tmp_path, check=False)

    assert "1 nodes removed" in pruned.stdout
    assert f"{way_back} NODE" in pruned.stderr
    assert (again.returncode, f"{way_back} payroll" in again.stderr) == (1, True)
    token = command("token", "create", "--node", "payroll", "--data-dir", tmp_path).stdout.strip()
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        made = registry.enrol(Applicant(token, KEY, "another-name", {}))
    assert made.node_id == "payroll"
    assert way_back not in command("prune", "--data-dir", tmp_path).stderr


@pytest.mark.slow
async def test_a_backup_serves_in_place_of_the_original(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data_dir, copy = tmp_path / "d", tmp_path / "copy"
    node = create_node(data_dir)
    with closing(Registry(data_dir, clock=SystemClock())) as registry:
        registry.secrets.set("n1", "s", "v")
    with running(data_dir) as server:
        client = Client(session, server.url, node["auth_token"])
        assert (await client.post("/v1/nodes/n1/metrics", EXAMPLE.to_json())).status == 200
        run(data_dir, "backup", copy)
        assert (await client.post("/v1/nodes/n1/metrics", EXAMPLE.to_json())).status == 200
        run(data_dir, "backup", tmp_path / "registry-copy", "--registry-only")
        server.stop()
    run(data_dir, "backup", tmp_path / "of-a-stopped-one")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in copy.iterdir()}
    assert modes == dict.fromkeys(["master.key", "points.duckdb", "registry.db"], 0o600)
    with served(copy) as server:
        client = Client(session, server.url, node["auth_token"])
        latest = await client.get("/v1/nodes/n1/latest")
        assert {point["group"] for point in latest.json["points"]} >= {"system", "tunnel"}
        assert (await client.get("/v1/nodes/n1/secrets/s")).status == 200
        assert (await client.get("/v1/nodes/n1/ledger")).json["received"] == 0
    with served(tmp_path / "of-a-stopped-one") as server:
        client = Client(session, server.url, node["auth_token"])
        assert len((await client.get("/v1/nodes/n1/latest")).json["points"]) == 3
    with served(tmp_path / "registry-copy") as server:
        client = Client(session, server.url, node["auth_token"])
        assert (await client.get("/v1/nodes/n1/state")).status == 200


def test_a_backup_replaces_nothing(tmp_path: Path) -> None:
    create_node(tmp_path / "d")
    (tmp_path / "copy").mkdir()

    assert "File exists" in refused(tmp_path / "d", "backup", tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []


def test_a_network_without_a_free_address_enrols_nobody(tmp_path: Path) -> None:
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        registry.mesh_network = "10.0.0.0/30"
        token, _ = registry.tokens.create(uses=3, expires_in=timedelta(hours=1))
        keys = [f"{letter * 42}A=" for letter in "ABC"]
        made = [registry.enrol(Applicant(token, key, "h", {})).mesh_ip for key in keys[:2]]
        with pytest.raises(RegistryError, match="no free address"):
            registry.enrol(Applicant(token, keys[2], "h", {}))

        assert made == ["10.0.0.1", "10.0.0.2"]
        assert registry.tokens.list()[0].uses_left == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "ff02::1", "0.0.0.0", "169.254.1.1"])
def test_an_address_that_no_node_can_have_is_refused(tmp_path: Path, address: str) -> None:
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        token, _ = registry.tokens.create(uses=1, expires_in=timedelta(hours=1))
        with pytest.raises(RegistryError, match="cannot be the address of a node"):
            registry.enrol(Applicant(token, KEY, "h", {}, address))


@pytest.mark.parametrize(
    ("hostname", "taken", "node_id"),
    [
        ("a" * 100, set(), "a" * 63),
        ("a" * 100, {"a" * 63}, "a" * 61 + "-2"),
        ("", set(), "node"),
        ("---", {"node"}, "node-2"),
        ("web", {"web", "web-2"}, "web-3"),
    ],
)
def test_any_hostname_gives_a_free_node_id(hostname: str, taken: set[str], node_id: str) -> None:
    assert free_node_id(hostname, taken) == node_id


def test_a_token_for_a_local_endpoint_can_be_set_and_revoked(tmp_path: Path) -> None:
    file, data_dir = tmp_path / "token", tmp_path / "d"
    for text, words in (("short", "at least 16"), ("x" * 16 + " y", "at least 16")):
        file.write_text(text)
        assert words in refused(data_dir, "ingest-token", "create", "n1", "--value-file", file)
    file.write_text("0123456789abcdef\n")
    assert run(data_dir, "ingest-token", "create", "n1", "--value-file", file) == ""
    assert "in use already" in refused(
        data_dir, "ingest-token", "create", "n2", "--value-file", file
    )

    assert "for /ingest" in run(data_dir, "node", "show", "n1")
    run(data_dir, "ingest-token", "revoke", "n1")
    assert "for /ingest" not in run(data_dir, "node", "show", "n1")
    run(data_dir, "node", "revoke", "n1")
    assert "is revoked" in refused(data_dir, "ingest-token", "create", "n1")


def test_a_rotation_keeps_the_key_unless_a_new_one_is_asked_for(tmp_path: Path) -> None:
    made = create_node(tmp_path)
    same = json.loads(run(tmp_path, "node", "rotate", "n1"))
    other = json.loads(run(tmp_path, "node", "rotate", "n1", "--new-key", "--keep-old", "1s"))

    assert same["node_secret_key"] == made["node_secret_key"] != other["node_secret_key"]
    ends = [token["expires_at"] for token in listed(tmp_path, "node", "show", "n1")["tokens"]]
    assert [end is None for end in ends] == [True, False, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--public-key", "short"], "is not one as `wg` prints it"),
        (["--mesh-ip", "10.0.0.1"], "is that of node n1"),
        (["--public-key", KEY], "is that of another node"),
    ],
)
def test_a_node_made_by_hand_gets_no_key_or_address_of_another(
    tmp_path: Path, options: list[str], words: str
) -> None:
    run(tmp_path, "node", "create", "n1", "--mesh-ip", "10.0.0.1", "--public-key", KEY)

    assert words in refused(tmp_path, "node", "create", "n2", *options)
    assert len(listed(tmp_path, "node", "list")["nodes"]) == 1


@pytest.mark.slow
def test_a_locked_registry_is_reported_with_the_reason(tmp_path: Path) -> None:
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        with closing(holder):
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(RegistryUnavailable, match="cannot be read or written now") as error:
                registry.create_node("n1")
            assert "locked" in str(error.value.__cause__)
            assert registry.nodes() == []  # readers do not wait
        registry.create_node("n1")
