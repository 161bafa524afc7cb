"""Registration of a machine, its peers and secrets, and callers that are refused."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from plexd.clock import SystemClock
from plexd.nodeapi import decrypt_secret
from plexd_server.registry import Registry
from server.running import Client, Running, command, connected, running, served
from support.points import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from server.running import Answer


class Plane:
    """A running server and its registry, as the operator has them."""

    def __init__(self, server: Running, data_dir: Path) -> None:
        self.server = server
        self.data_dir = data_dir
        self.registry = Registry(data_dir, clock=SystemClock())

    def token(self, *options: str) -> str:
        return command("token", "create", *options, "--data-dir", self.data_dir).stdout.strip()

    def log(self) -> str:
        return (self.data_dir.parent / f"{self.data_dir.name}.log").read_text()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    data_dir = tmp_path_factory.mktemp("enrol") / "data"
    with running(data_dir, "--mesh-network", "10.99.0.0/16") as server:
        made = Plane(server, data_dir)
        yield made
        made.registry.close()


@pytest.fixture
def client(plane: Plane, session: aiohttp.ClientSession) -> Client:
    return Client(session, plane.server.url)


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def application(token: str, **members: object) -> bytes:
    fields = {"token": token, "public_key": new_key(), "hostname": "berlin", "metadata": {}}
    return json.dumps(fields | members).encode()


async def enrol(client: Client, token: str, **members: object) -> dict[str, Any]:
    answer = await client.post("/v1/register", application(token, **members))
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json
    return made


@pytest.mark.slow
async def test_a_state_that_a_node_has_already_is_not_sent_again(
    plane: Plane, client: Client
) -> None:
    token = plane.token("--uses", "2")
    one = await enrol(client, token, hostname="gera")
    node, path = client.with_token(one["auth_token"]), "/v1/nodes/gera/state"
    first = await node.get(path)
    etag = first.headers["ETag"]

    for known in (etag, f"W/{etag}", f'"other", W/{etag}', "*"):
        again = await node.get(path, If_None_Match=known)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert (await node.get(path, If_None_Match='"other"')).body == first.body
    refused = await client.with_token("x" * 43).get(path, If_None_Match=etag)
    assert refused.status == 401
    await enrol(client, token, hostname="jena")
    changed = await node.get(path, If_None_Match=etag)
    assert (changed.status, "jena" in changed.body.decode()) == (200, True)


async def test_two_machines_enrol_and_know_each_other(plane: Plane, client: Client) -> None:
    token = plane.token("--uses", "2")
    keys = new_key(), new_key()
    one = await enrol(client, token, public_key=keys[0], hostname="oslo")
    two = await enrol(client, token, public_key=keys[1], hostname="oslo")

    assert (one["node_id"], two["node_id"]) == ("oslo", "oslo-2")
    assert one["mesh_ip"].startswith("10.99.0.")
    expected = {"id": "oslo", "public_key": keys[0], "mesh_ip": one["mesh_ip"]}
    assert expected in two["peers"]
    state = await client.with_token(two["auth_token"]).get("/v1/nodes/oslo-2/state")
    assert expected in state.json["peers"]
    assert "oslo-2" not in {peer["id"] for peer in state.json["peers"]}
    report = await client.with_token(one["auth_token"]).post(
        "/v1/nodes/oslo/metrics", EXAMPLE.to_json()
    )
    assert report.status == 200


async def test_a_one_time_token_registers_exactly_one_of_many(plane: Plane, client: Client) -> None:
    token = plane.token()

    answers = await asyncio.gather(
        *(client.post("/v1/register", application(token)) for _ in range(8))
    )

    assert sorted(answer.status for answer in answers) == [200] + [401] * 7


@pytest.mark.slow
async def test_a_registry_that_is_locked_keeps_nobody_from_reporting(
    plane: Plane, client: Client
) -> None:
    made = await enrol(client, plane.token())
    body, path = application(plane.token()), f"/v1/nodes/{made['node_id']}/metrics"
    with closing(sqlite3.connect(plane.data_dir / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        entering = asyncio.create_task(client.post("/v1/register", body))
        report = await client.with_token(made["auth_token"]).post(path, EXAMPLE.to_json())
        refused = await entering
        other.execute("ROLLBACK")

    assert report.status == 200
    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert (await client.post("/v1/register", body)).status == 200


async def test_a_fixed_address_is_kept_and_nobody_elses_is_taken(
    plane: Plane, client: Client
) -> None:
    token = plane.token("--uses", "3")
    asked = {"mesh_ip": "10.99.7.7", "rack": "4"}
    one = await enrol(client, token, metadata=asked)
    second = await client.post("/v1/register", application(token, metadata=asked))
    three = await enrol(client, token)

    assert one["mesh_ip"] == "10.99.7.7"
    assert second.status == 409
    assert "10.99.7.7" in second.json["detail"]
    assert three["mesh_ip"] != "10.99.7.7"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.98.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "10.99.0.0"),
        *("10.99.255.255", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "::ffff:10.99.0.1"),
    ],
)
async def test_nobody_makes_the_mesh_ping_an_address_outside_of_it(
    plane: Plane, client: Client, address: str
) -> None:
    token = plane.token()
    asked = application(token, metadata={"mesh_ip": address})

    assert (await client.post("/v1/register", asked)).status == 409
    assert (await enrol(client, token))["mesh_ip"].startswith("10.99.")


async def test_two_spellings_of_an_address_are_one(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d") as server:
        client = Client(session, server.url)
        token = command("token", "create", "--uses", "9", "--data-dir", tmp_path / "d").stdout
        asked = [
            application(token.strip(), metadata={"mesh_ip": text})
            for text in ("fd00::2", "FD00::2", "fd00:0:0::2", "fd00::2%x", "fd00::2%x y", "fd00::3")
        ]
        statuses = [(await client.post("/v1/register", body)).status for body in asked]

    assert statuses == [200, 409, 409, 422, 422, 200]


async def test_a_right_token_registers_however_many_wrong_ones_came_from_its_address(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d") as server:
        client = Client(session, server.url)
        wrong = [
            (await client.post("/v1/register", application(f"guess-{n}"))).status
            for n in range(100)
        ]
        token = command("token", "create", "--data-dir", tmp_path / "d").stdout.strip()
        right = await client.post("/v1/register", application(token))

    assert wrong == [401] * 30 + [429] * 70
    assert right.status == 200


async def test_knowing_a_nodes_public_key_is_not_enough_to_become_it(
    plane: Plane, client: Client
) -> None:
    key = new_key()
    first = await enrol(client, plane.token(), public_key=key, hostname="rome")
    token = plane.token()
    stolen = await client.post("/v1/register", application(token, public_key=key))

    assert stolen.status == 409
    assert "token create --node rome" in stolen.json["detail"]
    assert (await enrol(client, token))["node_id"]  # a refusal does not use the token up

    again = await enrol(client, plane.token("--node", "rome"), public_key=key)
    assert (again["node_id"], again["mesh_ip"]) == ("rome", first["mesh_ip"])
    assert again["auth_token"] != first["auth_token"]
    path = "/v1/nodes/rome/state"
    assert (await client.with_token(again["auth_token"]).get(path)).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 10_000, 422),
        (b"[]", 422),
        (b"{}", 422),
        (application(""), 422),
        (application("x", public_key="short"), 422),
        (application("x", public_key="A" * 44), 422),
        (application("x", hostname="a\nb"), 422),
        (application("x", hostname="a" * 254), 422),
        (application("x", metadata={"mesh_ip": "10.0.0.0/8"}), 422),
        (application("x", metadata={"a": 1}), 422),
        (application("x", metadata={str(n): "" for n in range(33)}), 422),
        (application("x", node_id="admin"), 422),
        (application("nobody-gave-this"), 401),
        (application("x" * 20_000), 413),
    ],
)
async def test_an_invalid_application_is_refused_with_its_reason(
    client: Client, body: bytes, status: int
) -> None:
    answer = await client.post("/v1/register", body)

    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "members",
    [
        {"capabilities": {"actions": [{"name": "reload"}], "hooks": None}},
        {"capabilities": ["path", "probe_plan"]},
        {"capabilities": None},
        {"labels": {"site": [1, 2.5, None]}, "capabilities": "path"},
        {"metadata": None},
    ],
    ids=str,
)
async def test_what_only_a_newer_machine_says_is_accepted_and_has_no_effect(
    plane: Plane, client: Client, members: dict[str, object]
) -> None:
    made = await enrol(client, plane.token(), hostname="newer", **members)

    assert made["node_id"].startswith("newer")
    assert sorted(made) == [
        *("auth_token", "features", "mesh_ip", "node_id", "node_secret_key", "peers"),
    ]


async def test_registration_and_state_name_the_features_of_the_server(
    plane: Plane, client: Client
) -> None:
    made = await enrol(client, plane.token())
    path = f"/v1/nodes/{made['node_id']}/state"
    node = client.with_token(made["auth_token"])

    state = await node.get(path, Plexd_Features="path,probe_plan,of_a_newer_agent")

    assert list(state.json) == ["peers", "features"]
    assert state.json["features"] == made["features"] == []


async def test_an_application_of_megabytes_is_413_even_to_a_client_still_sending(
    client: Client,
) -> None:
    assert (await client.post("/v1/register", b" " * 4_000_000)).status == 413


@pytest.mark.parametrize(
    "headers", [{"content_type": "text/plain"}, {"Content_Encoding": "gzip"}], ids=str
)
async def test_an_unsupported_form_is_415(client: Client, headers: dict[str, Any]) -> None:
    assert (await client.post("/v1/register", application("x"), **headers)).status == 415


async def test_a_hostname_becomes_an_id_of_the_allow_list(plane: Plane, client: Client) -> None:
    token = plane.token("--uses", "4")
    names = ["../../etc/passwd", "Grüße aus Köln", "日本", "'; DROP TABLE nodes; --"]

    made = [(await enrol(client, token, hostname=name))["node_id"] for name in names]

    assert made == ["etc-passwd", "Gr-e-aus-K-ln", "node", "DROP-TABLE-nodes"]


async def test_a_secret_reaches_its_node_sealed_under_its_key(plane: Plane, client: Client) -> None:
    made = await enrol(client, plane.token(), hostname="lima")
    plane.registry.secrets.set("lima", "local-endpoint", "the token")
    node = client.with_token(made["auth_token"])

    first, second = [await node.get("/v1/nodes/lima/secrets/local-endpoint") for _ in range(2)]

    assert (first.json["key"], first.json["version"]) == ("local-endpoint", 1)
    assert first.json["nonce"] != second.json["nonce"]
    key = made["node_secret_key"].encode()
    assert decrypt_secret(key, first.json["ciphertext"], first.json["nonce"]) == "the token"
    assert first.headers["Cache-Control"] == "no-store"
    assert (await node.get("/v1/nodes/lima/secrets/other")).status == 404
    assert (await node.get("/v1/nodes/lima/secrets/%2e%2e%2fother")).status == 404


async def test_the_local_endpoints_token_opens_its_one_path(plane: Plane, client: Client) -> None:
    node = (await enrol(client, plane.token(), hostname="kyiv"))["auth_token"]
    token = command("ingest-token", "create", "kyiv", "--data-dir", plane.data_dir).stdout.strip()
    body = EXAMPLE.to_json()
    local = client.with_token(token)

    assert (await local.post("/ingest/kyiv", body)).json["accepted"] == len(EXAMPLE)
    assert (await local.post("/ingest/oslo", body)).status == 403
    assert (await local.post("/v1/nodes/kyiv/metrics", body)).status == 403
    assert (await local.get("/v1/nodes/kyiv/state")).status == 403
    assert (await client.with_token(node).post("/ingest/kyiv", body)).status == 403


class Doors:
    """Every route with one owner, with a body if it accepts one."""

    OF_NODES = (
        ("GET", "/v1/nodes/{}/state"),
        ("GET", "/v1/nodes/{}/secrets/s"),
        ("GET", "/v1/nodes/{}/latest"),
        ("GET", "/v1/nodes/{}/series"),
        ("GET", "/v1/nodes/{}/ledger"),
        ("POST", "/v1/nodes/{}/metrics"),
        ("POST", "/ingest/{}"),
    )


@pytest.fixture
def tokens(plane: Plane) -> dict[str, str]:
    """A token of each kind that does not open ``victim``, by what it is."""
    if plane.registry.node("victim") is None:
        plane.registry.create_node("victim")
        plane.registry.secrets.set("victim", "s", "v")
    name = f"mallory-{new_key()[:6].replace('/', '-').replace('+', '-')}"
    return {
        "node": plane.registry.create_node(name).auth_token,
        "ingest": plane.registry.create_ingest_token(name),
    }


async def ask(client: Client, method: str, path: str) -> Answer:
    if method == "POST":
        return await client.post(path, EXAMPLE.to_json())
    return await client.ask(method, path)


@pytest.mark.parametrize(("method", "path"), Doors.OF_NODES)
@pytest.mark.parametrize("kind", ["node", "ingest"])
async def test_a_token_opens_no_path_of_another_node_and_cannot_tell_whether_it_exists(
    client: Client, tokens: dict[str, str], kind: str, method: str, path: str
) -> None:
    asker = client.with_token(tokens[kind])

    answers = [
        await ask(asker, method, path.format(node_id))
        for node_id in ("victim", "nobody", "a%00b", "a%0d%0ab", "';--", "x" * 5000, "%D0%B0")
    ]

    assert {answer.status for answer in answers} == {403}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    "node_id", ["..", "%2e%2e", "%2e%2e%2fvictim", "victim%2f..%2fvictim", "."]
)
def test_a_path_within_a_path_leads_nowhere(
    plane: Plane, tokens: dict[str, str], node_id: str
) -> None:
    """Send the path unchanged: clients would normalize it."""
    request = f"GET /v1/nodes/{node_id}/state HTTP/1.1\r\nHost: localhost\r\n"
    request += f"Authorization: Bearer {tokens['node']}\r\n\r\n"
    with connected(plane.server.url) as connection:
        connection.sendall(request.encode())
        assert connection.recv(4000)[9:12] in {b"403", b"404"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
@pytest.mark.parametrize("path", [path for _, path in Doors.OF_NODES])
async def test_other_verbs_do_nothing(
    client: Client, tokens: dict[str, str], method: str, path: str
) -> None:
    answer = await client.with_token(tokens["node"]).ask(method, path.format("victim"))

    assert answer.status in {204, 403, 405}
    assert b"ciphertext" not in answer.body


@pytest.mark.parametrize(
    "token",
    ["", "x", "x" * 513, "x" * 7000, "a b", "Basic", "plexd-join-abc"],
    ids=lambda text: f"{len(text)}:{text[:6]}",
)
async def test_what_is_no_token_is_401(client: Client, token: str) -> None:
    answer = await client.get("/v1/nodes/victim/state", Authorization=f"Bearer {token}")

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "value", [b"Bearer \xc3\xa4\xff", b"Bearer " + b"x" * 60_000, b"Bearer", b"bearer\tx", b"\x80"]
)
def test_odd_bytes_in_place_of_a_token_open_nothing(plane: Plane, value: bytes) -> None:
    request = b"GET /v1/nodes/victim/state HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
    with connected(plane.server.url) as connection:
        connection.sendall(request + value + b"\r\n\r\n")
        assert connection.recv(4000)[9:12] in {b"400", b"401", b"431"}


async def test_a_revoked_node_is_refused_within_seconds_and_no_peer_any_more(
    plane: Plane, client: Client
) -> None:
    token = plane.token("--uses", "2")
    gone = await enrol(client, token, hostname="gone")
    stays = await enrol(client, token, hostname="stays")
    command("node", "revoke", "gone", "--data-dir", plane.data_dir)

    assert (await client.with_token(gone["auth_token"]).get("/v1/nodes/gone/state")).status == 401
    assert "gone" not in {peer.id for peer in plane.registry.peers_of("stays")}
    known = await client.with_token(stays["auth_token"]).get("/v1/nodes/stays/state")
    assert known.status == 200
    operator = client.with_token(plane.server.operator_token)
    told = [(await operator.get(f"/v1/nodes/{node}/latest")).json for node in ("gone", "stays")]
    assert [answer["revoked_at"] is None for answer in told] == [False, True]


async def test_the_old_and_the_new_token_work_during_the_change(
    plane: Plane, client: Client
) -> None:
    made = await enrol(client, plane.token(), hostname="quito")
    rotated = json.loads(command("node", "rotate", "quito", "--data-dir", plane.data_dir).stdout)

    path = "/v1/nodes/quito/state"
    assert rotated["node_secret_key"] == made["node_secret_key"]
    assert (await client.with_token(made["auth_token"]).get(path)).status == 200
    assert (await client.with_token(rotated["auth_token"]).get(path)).status == 200


async def test_nothing_secret_is_in_the_log_or_in_the_files(
    plane: Plane, client: Client, session: aiohttp.ClientSession
) -> None:
    token = plane.token()
    made = await enrol(client, token, hostname="canary")
    plane.registry.secrets.set("canary", "s", "canary-in-the-vault")
    ingest = plane.registry.create_ingest_token("canary")
    node = client.with_token(made["auth_token"])
    for path in ("/v1/nodes/canary/secrets/s", "/v1/nodes/victim/state", "/v1/nodes"):
        await node.get(path)
    await client.get(f"/login?token={made['auth_token']}")
    await client.post("/v1/register", application(token))
    await Client(session, plane.server.url, ingest).post("/ingest/canary", b"{")

    pages = (await client.with_token(plane.server.operator_token).get("/v1/nodes")).body
    files = b"".join(path.read_bytes() for path in plane.data_dir.rglob("*") if path.is_file())
    secrets = [
        *(token, made["auth_token"], made["node_secret_key"], ingest),
        *("canary-in-the-vault", plane.server.operator_token),
    ]
    for secret in secrets:
        assert secret.encode() not in files
        assert secret not in plane.log()
        assert secret.encode() not in pages
