"""The live picture over HTTP, from a server of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from plexd.api import BatchName, MetricBatch
from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock, system_point
from plexd_server.errors import StoreError
from plexd_server.mesh import LiveMesh, ObservedStore, watching
from plexd_server.registry import Registry
from plexd_server.store import Ledger, Loss, Receipt, Report, Series, StoredPoint
from server.running import Client, create_node, served
from support.readings import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from plexd_server.store import SeriesQuery

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize("path", ["/v1/fleet", "/v1/mesh"])
async def test_the_whole_picture_is_the_operators(
    n1: Client, nobody: Client, operator: Client, path: str
) -> None:
    assert (await nobody.get(path)).status == 401
    assert (await n1.get(path)).status == 403
    answer = await operator.get(path)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")


async def test_a_nodes_peers_are_its_own_and_the_operators(n1: Client, operator: Client) -> None:
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


async def test_a_large_answer_is_compressed_for_who_takes_that(tmp_path: Path) -> None:
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


class ScriptedStore:
    """Answers what it was given and remembers whose ledger was asked for."""

    def __init__(self, points: list[StoredPoint], *, fails: bool = False) -> None:
        self.points = points
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.receipt = Receipt(accepted=1)
        self._fails = fails

    async def write(self, delivery: Report) -> Receipt:
        assert delivery.node_id
        return self.receipt

    async def ledger(self, node_id: str) -> Ledger:
        self.asked.append(node_id)
        self.was_asked.set()
        if self._fails:
            raise StoreError("no")
        loss = Loss(reason="evicted", since=None, until=NOW, noticed_at=NOW, points=7, batches=1)
        return Ledger(losses=[loss])

    async def latest(self, node_id: str) -> list[StoredPoint]:
        if self._fails:
            self.was_asked.set()
            raise StoreError(f"{node_id} cannot be read")
        return self.points

    async def series(self, query: SeriesQuery) -> Series:
        values: dict[str, list[float | None]] = {query.fields[0]: [12.0, None]}
        return Series([NOW, NOW + timedelta(minutes=1)], values, values, values)

    async def fleet(self) -> list[object]:
        return []

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, clock=SystemClock())
    made.create_node("n1")
    yield made
    made.close()


def observed(store: ScriptedStore) -> tuple[ObservedStore, LiveMesh]:
    board = LiveMesh()
    return ObservedStore(store, board), board  # type: ignore[arg-type]


def delivery(seq: int, **more: Any) -> Report:
    name = BatchName("0" * 32, seq, 0, 1)
    return Report("n1", [system_point(NOW)], NOW, name, **more)


async def test_what_is_stored_is_shown_to_the_board_and_duplicates_are_not() -> None:
    store = ScriptedStore([])
    watched, board = observed(store)

    await watched.write(delivery(1))
    store.receipt = Receipt(accepted=0, duplicate=True)
    await watched.write(delivery(1))

    assert board.waiting == 1


@pytest.mark.parametrize(
    ("deliveries", "suspected"),
    [
        ([delivery(1), delivery(2)], []),
        ([delivery(1), delivery(3)], ["n1"]),
        ([delivery(5), delivery(2)], ["n1"]),  # the first one here: nobody knows what was to come
        ([delivery(1, dropped=4)], ["n1"]),
        ([delivery(1, rejected=1)], ["n1"]),
    ],
)
async def test_a_jump_or_a_word_of_loss_makes_a_node_a_suspect_once(
    deliveries: list[Report], suspected: list[str]
) -> None:
    watched, _ = observed(ScriptedStore([]))
    for one in deliveries:
        await watched.write(one)

    assert watched.suspects() == suspected
    assert watched.suspects() == []


async def test_the_board_is_filled_from_the_store_and_kept_settled(registry: Registry) -> None:
    clock = ManualClock(NOW)
    stored = system_point(NOW)
    store = ScriptedStore(
        [StoredPoint(timestamp=NOW, received_at=NOW, group="system", data=stored.data)]  # type: ignore[arg-type]
    )
    watched, board = observed(store)

    async with watching(watched, board, registry, clock):
        await store.was_asked.wait()
        await clock.advance(0.1)
        assert board.node("n1").losses
        await watched.write(delivery(1, dropped=3))
        assert board.waiting == 1
        await clock.advance(2.5)
        assert board.waiting == 0

    assert board.node("n1").system is not None
    assert board.node("n1").history[0][1] == 12.0
    assert store.asked == ["n1", "n1"]


async def test_a_store_that_fails_leaves_the_board_empty_and_the_server_up(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(NOW)
    store = ScriptedStore([], fails=True)
    watched, board = observed(store)

    async with watching(watched, board, registry, clock):
        await store.was_asked.wait()
        await watched.write(delivery(1, dropped=1))
        await clock.advance(2.5)

    assert "mesh not recalled" in caplog.text
    assert "losses not looked up" in caplog.text
    assert board.node("n1").received_at is not None
