"""The live mesh over HTTP."""

from __future__ import annotations

import asyncio
import base64
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import msgspec
import pytest

from plexd.api import MetricBatch
from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock, system_point
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.mesh import LiveMesh
from plexd_server.mesh.live import Roster
from plexd_server.registry import Node, Registry
from plexd_server.store import NodeSummary, Report, StoredPoint
from server.running import Client, create_node, served
from support.callbacks import MOST_SECONDS, longest_callback
from support.readings import reading, tunnel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
OPERATOR = "x" * 32


@pytest.mark.parametrize("path", ["/v1/fleet", "/v1/mesh"])
async def test_the_whole_mesh_is_for_the_operator(
    n1: Client, nobody: Client, operator: Client, path: str
) -> None:
    assert (await nobody.get(path)).status == 401
    assert (await n1.get(path)).status == 403
    answer = await operator.get(path)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")


async def test_a_nodes_peers_are_for_that_node_and_the_operator(
    n1: Client, operator: Client
) -> None:
    assert (await n1.get("/v1/nodes/n1/peers")).json["node_id"] == "n1"
    assert (await n1.get("/v1/nodes/n2/peers")).status == 403
    assert (await operator.get("/v1/nodes/none/peers")).status == 404


@pytest.mark.slow
async def test_both_ends_reports_become_one_link_and_survive_a_restart(tmp_path: Path) -> None:
    tokens = {name: create_node(tmp_path / "d", name)["auth_token"] for name in ("a", "b")}
    now = datetime.now(UTC).replace(microsecond=0)
    with served(tmp_path / "d") as server:
        async with aiohttp.ClientSession() as session:
            for name, peer in (("a", "b"), ("b", "a")):
                points = [system_point(now), *reading(peer, now, loss=5.0 if name == "a" else 0.0)]
                client = Client(session, server.url, tokens[name])
                body = MetricBatch(points).to_json()
                assert (await client.post(f"/v1/nodes/{name}/metrics", body)).status == 200
            before = await Client(session, server.url, server.operator_token).get("/v1/mesh")
    with served(tmp_path / "d") as server:
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            operator = Client(session, server.url, server.operator_token)
            while not (await operator.get("/v1/mesh")).json["links"]:
                pass
            fleet = await operator.get("/v1/fleet")

    (link,) = before.json["links"]
    assert (link["id"], link["state"], link["loss_asymmetry"]) == ("a~b", "up", -5.0)
    assert link["a_to_b"]["rtt_nano"] == 14_000_000
    assert fleet.json["nodes"][0]["system"]["cpu_usage_percent"] > 0
    assert any(value is not None for value in fleet.json["nodes"][0]["cpu_history"])


async def test_a_large_answer_is_compressed_on_request(tmp_path: Path) -> None:
    token = create_node(tmp_path / "d", "a")["auth_token"]
    now = datetime.now(UTC)
    points = [point for number in range(200) for point in reading(f"peer-{number}", now)]
    with served(tmp_path / "d") as server:
        async with aiohttp.ClientSession() as session:
            node = Client(session, server.url, token)
            await node.post("/v1/nodes/a/metrics", MetricBatch(points).to_json())
            packed = await node.get("/v1/nodes/a/peers")
            plain = await node.get("/v1/nodes/a/peers", Accept_Encoding="identity")

    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json["links"][0]["id"] == plain.json["links"][0]["id"] == "a~peer-0"
    assert len(plain.json["links"]) == 200


async def test_peers_that_are_no_nodes_are_bounded_by_an_option_and_counted(
    tmp_path: Path,
) -> None:
    token = create_node(tmp_path / "d", "a")["auth_token"]
    create_node(tmp_path / "d", "b")
    now = datetime.now(UTC)
    points = [tunnel(f"peer-{number}", now) for number in range(10)]
    with served(tmp_path / "d", foreign_peers=3) as server:
        async with aiohttp.ClientSession() as session:
            node = Client(session, server.url, token)
            await node.post(
                "/v1/nodes/a/metrics", MetricBatch([*points, tunnel("b", now)]).to_json()
            )
            answer = await Client(session, server.url, server.operator_token).get("/v1/mesh")

    names = [link["id"] for link in answer.json["links"]]
    assert names == ["a~b", "a~peer-0", "a~peer-1", "a~peer-2"]
    assert (answer.json["left_out"], answer.json["peers_left_out"]) == (0, 7)


async def test_a_node_is_up_or_silent_by_one_rule_in_every_answer(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d", "n1")["auth_token"]
    with served(tmp_path / "d") as server:
        n1 = Client(session, server.url, token)
        operator = n1.with_token(server.operator_token)
        body = MetricBatch([system_point(datetime.now(UTC))]).to_json()
        assert (await n1.post("/v1/nodes/n1/metrics", body)).status == 200
        (one,) = (await operator.get("/v1/fleet")).json["nodes"]
        (entry,) = (await operator.get("/v1/nodes")).json["nodes"]
        latest = (await operator.get("/v1/nodes/n1/latest")).json
        series = (await operator.get("/v1/nodes/n1/series?field=cpu_usage_percent")).json

    assert one["status"] == entry["status"] == latest["status"] == "up"
    assert one["silent_after_seconds"] == latest["silent_after_seconds"] == 150
    assert series["silent_after_seconds"] == 150
    assert latest["reading_seconds"] < 60


async def test_a_report_counts_at_once_whichever_page_is_asked(tmp_path: Path) -> None:
    token = create_node(tmp_path / "d", "a")["auth_token"]
    with served(tmp_path / "d") as server:
        async with aiohttp.ClientSession() as session:
            node = Client(session, server.url, token)
            body = MetricBatch([system_point(datetime.now(UTC))]).to_json()
            await node.post("/v1/nodes/a/metrics", body)
            latest = (await node.get("/v1/nodes/a/latest")).json

    assert latest["status"] == "up"
    assert 0 <= latest["reading_seconds"] < 60


async def test_a_node_of_which_nothing_is_stored_waits_on_every_page(tmp_path: Path) -> None:
    """All that it reports is ahead of the clock; the other nodes are right."""
    tokens = [create_node(tmp_path / "d", name)["auth_token"] for name in ("a", "b", "c")]
    now = datetime.now(UTC)
    for is_again in (False, True):
        with served(tmp_path / "d") as server:
            async with aiohttp.ClientSession() as session:
                for name, token in zip("abc", tokens, strict=True):
                    at = now + timedelta(days=2 if name == "c" else 0)
                    node = Client(session, server.url, token)
                    if not is_again:
                        body = MetricBatch([system_point(at)]).to_json()
                        await node.post(f"/v1/nodes/{name}/metrics", body)
                operator = Client(session, server.url, server.operator_token)
                fleet = (await operator.get("/v1/fleet")).json["nodes"]
                while fleet[1]["status"] != "up":  # they are read from the store
                    fleet = (await operator.get("/v1/fleet")).json["nodes"]
                nodes = (await operator.get("/v1/nodes")).json["nodes"]
                latest = (await operator.get("/v1/nodes/c/latest")).json

        assert [node["status"] for node in fleet] == ["up", "up", "waiting"]
        assert [node["status"] for node in nodes] == ["up", "up", "waiting"]
        assert latest["status"] == "waiting"
        assert nodes[2]["received_at"] is latest["received_at"] is None


async def test_a_peer_read_by_its_key_has_its_name_before_anybody_asks_for_the_fleet(
    tmp_path: Path,
) -> None:
    key = base64.b64encode(bytes(32)).decode()
    (tmp_path / "d").mkdir()
    with closing(Registry(tmp_path / "d", clock=SystemClock())) as registry:
        token = registry.create_node("a").auth_token
        registry.create_node("b", public_key=key)
    with served(tmp_path / "d") as server:
        async with aiohttp.ClientSession() as session:
            node = Client(session, server.url, token)
            body = MetricBatch(reading(key, datetime.now(UTC))).to_json()
            await node.post("/v1/nodes/a/metrics", body)
            peers = await node.get("/v1/nodes/a/peers")

    assert [link["id"] for link in peers.json["links"]] == ["a~b"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, clock=SystemClock())
    made.create_node("n1")
    yield made
    made.close()


async def ask(app: Any, path: str) -> bytes:
    """Return the body of the answer to the operator."""
    sent = list[Any]()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer " + OPERATOR.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    return b"".join(message.get("body", b"") for message in sent[1:])


async def test_an_answer_changes_nothing_in_the_live_mesh(registry: Registry) -> None:
    key = base64.b64encode(bytes(32)).decode()
    registry.create_node("n2", public_key=key)
    live = LiveMesh()
    store: Any = None  # these routes do not read it
    operator, clock = OperatorKey.of(OPERATOR), SystemClock()
    app = build_app(store, live, registry, operator, port=1, clock=clock)
    for node_id in ("n1", "unregistered"):
        live.observe(Report(node_id, reading(key, NOW), NOW))
    live.drain()
    before = live.roster, dict(live.nodes)

    for path in ("/v1/fleet", "/v1/mesh", "/v1/nodes/n1/peers"):
        assert msgspec.json.decode(await ask(app, path))

    assert (live.roster, live.nodes) == before


class Asked(NamedTuple):
    """An application on a clock of its own, and its live mesh."""

    app: Any
    live: LiveMesh
    clock: ManualClock

    def report(self, peers: int) -> None:
        now = self.clock.now()
        points = [point for number in range(peers) for point in reading(f"p{number}", now)]
        self.live.observe(Report("n1", [system_point(now), *points], now))

    async def moments(self, path: str, times: int) -> list[str]:
        """Ask so many times at once, and return the moments that the answers are of."""
        answers = await asyncio.gather(*(ask(self.app, path) for _ in range(times)))
        return [msgspec.json.decode(answer)["now"] for answer in answers]


@pytest.fixture
def asked(registry: Registry) -> Asked:
    clock = ManualClock(NOW)
    live = LiveMesh(clock=clock)
    live.update_roster(Roster.of(registry.nodes()))
    store: Any = None  # these routes do not read it
    app = build_app(store, live, registry, OperatorKey.of(OPERATOR), port=1, clock=clock)
    return Asked(app, live, clock)


async def test_a_large_answer_is_made_once_for_all_who_ask_within_a_second(asked: Asked) -> None:
    asked.report(peers=300)
    first = set(await asked.moments("/v1/mesh", 30))
    await asked.clock.advance(0.5)
    within = set(await asked.moments("/v1/mesh", 30))
    await asked.clock.advance(0.5)
    after = set(await asked.moments("/v1/mesh", 30))

    assert first == within
    assert (len(first), len(after)) == (1, 1)
    assert first < first | after


async def test_a_small_answer_is_never_old(asked: Asked) -> None:
    (before,) = json_nodes(await ask(asked.app, "/v1/fleet"))
    asked.report(peers=3)
    (after,) = json_nodes(await ask(asked.app, "/v1/fleet"))

    assert (before["status"], after["status"]) == ("waiting", "up")


def json_nodes(answer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(answer)["nodes"]
    return found


class HurryingClock(SystemClock):
    """A clock on which as much time passes as a test wants; nothing sleeps longer by it."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class LargeRegistry:
    """Lists nodes that nobody registered."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def nodes(self) -> list[Node]:
        return self._nodes


class LargeStore:
    """Has one point of each node."""

    def __init__(self, nodes: list[Node]) -> None:
        self._found = [
            NodeSummary(
                node_id=node.node_id,
                received_at=NOW,
                system=StoredPoint(
                    timestamp=NOW,
                    received_at=NOW,
                    group="system",
                    peer_id="",
                    data=system_point(NOW).data,
                ),
            )
            for node in nodes
        ]

    async def fleet(self) -> list[NodeSummary]:
        return self._found


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/fleet", "/v1/mesh", "/v1/nodes"])
async def test_no_answer_about_five_thousand_nodes_holds_the_loop(path: str) -> None:
    nodes = [Node(f"n{number:05}", "10.0.0.1", NOW) for number in range(5000)]
    clock = HurryingClock()
    live = LiveMesh(max_waiting=1_000_000, clock=clock)
    live.update_roster(Roster.of(nodes))
    for number, node in enumerate(nodes):
        peers = [nodes[(number + step) % len(nodes)].node_id for step in (1, 2)]
        points = [point for peer in peers for point in reading(peer, NOW)]
        live.observe(Report(node.node_id, [system_point(NOW), *points], NOW))
    live.drain()
    registry: Any = LargeRegistry(nodes)
    store: Any = LargeStore(nodes)
    operator = OperatorKey.of(OPERATOR)
    app = build_app(store, live, registry, operator, port=1, clock=clock)
    answers: list[bytes] = []

    async def ask_once() -> None:
        clock.ahead += 10.0
        answers.append(await ask(app, path))

    longest = await longest_callback(ask_once)

    assert len(json_nodes(answers[-1])) == 5000
    assert longest < MOST_SECONDS
