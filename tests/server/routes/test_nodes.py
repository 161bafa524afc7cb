from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from server.running import Client, create_node, served
from support.points import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

NODE = "/v1/nodes/n1"


def report(ahead: timedelta = timedelta(0), **system: float) -> bytes:
    """A system point of this very moment, by a clock that may be ahead."""
    point = json.loads(EXAMPLE.to_json())[0]
    point["timestamp"] = (datetime.now(UTC) + ahead).isoformat()
    point["data"] |= system
    return json.dumps([point]).encode()


async def test_a_node_reads_its_own_newest_points(n1: Client) -> None:
    await n1.post(f"{NODE}/metrics", report(load_avg_1=3.25))

    answer = await n1.get(f"{NODE}/latest")

    assert answer.status == 200
    system = next(p for p in answer.json["points"] if p["group"] == "system")
    assert system["data"]["load_avg_1"] == 3.25
    assert system["timestamp"] <= system["received_at"] <= answer.json["now"]
    assert "peer_id" not in system


@pytest.mark.slow
async def test_a_node_whose_clock_was_set_right_shows_what_came_last_on_every_page(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    ahead = {"cpu_usage_percent": 99.0, "disk_used_bytes": 99 * 2**30}
    right = {"cpu_usage_percent": 7.0, "disk_used_bytes": 50 * 2**30}
    with served(data) as server:
        node = Client(session, server.url, token)
        await node.post(f"{NODE}/metrics", report(timedelta(hours=6), **ahead))
        await node.post(f"{NODE}/metrics", report(timedelta(0), **right))
        before = await shown(node, node.with_token(server.operator_token))
    with served(data) as server:
        node = Client(session, server.url, token)
        after = await shown(node, node.with_token(server.operator_token))

    assert before == after == (7.0, 7.0, 7.0, [])


async def shown(node: Client, operator: Client) -> tuple[float, float, float, list[str]]:
    """The processor's load as three answers have it, and what there is to look at."""
    (latest,) = (await node.get(f"{NODE}/latest")).json["points"]
    (entry,) = (await operator.get("/v1/nodes")).json["nodes"]
    async with asyncio.timeout(20):
        while (fleet := (await operator.get("/v1/fleet")).json)["nodes"][0]["system"] is None:
            pass
    cpu = "cpu_usage_percent"
    return (
        latest["data"][cpu],
        entry["system"]["data"][cpu],
        fleet["nodes"][0]["system"][cpu],
        [alert["kind"] for alert in fleet["alerts"]],
    )


async def test_the_operator_reads_every_node(operator: Client, n1: Client) -> None:
    await n1.post(f"{NODE}/metrics", report())

    nodes = (await operator.get("/v1/nodes")).json["nodes"]

    assert [node["node_id"] for node in nodes] == ["n1", "n2", "n3"]
    assert nodes[0]["system"]["data"]["disk_total_bytes"] == 107374182400
    assert (await operator.get(f"{NODE}/latest")).status == 200


@pytest.mark.parametrize("read", ["latest", "series?field=load_avg_1"])
async def test_another_nodes_points_are_403_whether_it_exists_or_not(n1: Client, read: str) -> None:
    answers = [await n1.get(f"/v1/nodes/{node}/{read}") for node in ("n2", "none", "%27")]

    assert {(answer.status, answer.body) for answer in answers} == {(403, answers[0].body)}


@pytest.mark.parametrize("path", ["/v1/nodes", f"{NODE}/latest", f"{NODE}/series?field=load_avg_1"])
async def test_reading_takes_a_token(nobody: Client, path: str) -> None:
    answer = await nobody.get(path)

    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/problem+json")


async def test_a_node_may_not_list_the_others(n1: Client) -> None:
    assert (await n1.get("/v1/nodes")).status == 403


async def test_an_unknown_node_is_404_for_the_operator(operator: Client) -> None:
    assert (await operator.get("/v1/nodes/none/latest")).status == 404
    assert (await operator.get("/v1/nodes/none/series?field=load_avg_1")).status == 404


async def test_a_series_is_asked_for_in_the_url(n1: Client) -> None:
    await n1.post(f"{NODE}/metrics", report(load_avg_5=7.5))

    answer = await n1.get(
        f"{NODE}/series?field=load_avg_5&field=network_rx_bytes&since=5m&step=300"
    )

    assert answer.status == 200
    series = answer.json
    assert 7.5 in [*series["fields"]["load_avg_5"]["max"]]
    assert series["fields"]["network_rx_bytes"]["kind"] == "rate"
    assert series["step_seconds"] == 300
    span = datetime.fromisoformat(series["until"]) - datetime.fromisoformat(series["since"])
    assert span == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "field"),
        ("field=node_id", "field"),
        ("field=load_avg_1;DROP TABLE meta", "field"),
        ("group=none&field=load_avg_1", "group"),
        ("group=latency&field=rtt_nano", "peer_id"),
        ("field=load_avg_1&peer_id=p", "peer_id"),
        ("field=load_avg_1&since=yesterday", "since"),
        ("field=load_avg_1&since=2026-01-01T00:00:00", "since"),
        ("field=load_avg_1&since=0001-01-01T00:00:00%2B14:00", "since"),
        ("field=load_avg_1&since=999999d", "since"),
        ("field=load_avg_1&since=1m&until=5m", "since"),
        ("field=load_avg_1&since=3661d", "since"),
        ("field=load_avg_1&since=32d&step=10000", "step"),
        ("field=load_avg_1&since=1m&since=2m", "since"),
        ("field=load_avg_1&until=%00", "until"),
        ("field=load_avg_1&step=0", "step"),
        ("field=load_avg_1&step=1.5", "step"),
        ("field=load_avg_1&since=7d&step=1", "step"),
        ("field=load_avg_1&step=%D9%A3", "step"),
    ],
)
async def test_a_malformed_query_is_400_and_names_the_parameter(
    n1: Client, query: str, field: str
) -> None:
    answer = await n1.get(f"{NODE}/series?{query}")

    assert (answer.status, answer.json.get("field")) == (400, field)


async def test_peers_and_every_field_can_be_asked_for(n1: Client) -> None:
    await n1.post(f"{NODE}/metrics", EXAMPLE.to_json())
    window = "since=2026-02-12T10:00:00Z&until=2026-02-12T11:00:00%2B00:00"

    tunnel = await n1.get(
        f"{NODE}/series?group=tunnel&peer_id=peer-abc-123&field=packet_loss_percent&{window}"
    )
    latency = await n1.get(
        f"{NODE}/series?group=latency&peer_id=peer-abc-123&field=rtt_nano&{window}"
    )

    assert tunnel.json["fields"]["packet_loss_percent"]["avg"] == [0.5]
    assert latency.json["fields"]["rtt_nano"]["max"] == [15000000.0]


async def test_health_needs_no_token_and_asks_the_store(nobody: Client) -> None:
    answer = await nobody.get("/healthz")

    assert (answer.status, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/none", 404),
        ("GET", "/v1/nodes/a/b/c", 404),
        ("GET", "/v1/nodes/a%2Fb/latest", 404),
        ("GET", "/schema", 404),
        ("DELETE", "/healthz", 405),
        ("PUT", f"{NODE}/metrics", 405),
        ("PROPFIND", "/healthz", 405),
    ],
)
async def test_what_is_not_served_is_a_problem_too(
    nobody: Client, method: str, path: str, status: int
) -> None:
    answer = await nobody.ask(method, path)

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")


async def test_answers_are_not_cached(operator: Client) -> None:
    assert (await operator.get("/v1/nodes")).headers["Cache-Control"] == "no-store"
