"""No report and no question holds the server's event loop, whatever is in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import GROUP_AGENT, AgentStats, MetricBatch, MetricPoint
from plexd.metrics.testing import system_point
from server.running import Client, create_node, gzipped, served
from support.callbacks import MOST_SECONDS, longest_callback
from support.readings import latency, tunnel

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

MANY = range(10_000)
QUESTIONS = (
    "/v1/fleet",
    "/v1/mesh",
    "/v1/nodes",
    "/v1/nodes/n1/latest",
    "/v1/nodes/n1/peers",
    "/v1/nodes/n1/series?field=load_avg_1&since=7d&step=400",
)


def bodies() -> dict[str, bytes]:
    """Reports of as many points as there may be, of each group and of each form."""
    start = datetime.now(UTC) - timedelta(hours=6)
    times = [start + timedelta(seconds=number) for number in MANY]
    peers = [latency(f"p{number}", start) for number in MANY]
    made = {
        "system": [system_point(when) for when in times],
        "agent": [
            MetricPoint(timestamp=when, group=GROUP_AGENT, data=AgentStats(*range(7)))
            for when in times
        ],
        "latency": peers,
        "tunnel": [tunnel(f"p{number}", start, moved=number) for number in MANY],
    }
    found = {name: MetricBatch(points).to_json() for name, points in made.items()}
    found["another time zone"] = found["tunnel"].replace(b'Z"', b'+01:00"')
    said: list[dict[str, Any]] = json.loads(found["latency"])
    for point in said:
        point["data"]["novel"] = 1
    found["keys that are not known"] = json.dumps(said).encode()
    others = [{**point, "group": "custom", "peer_id": "p"} for point in said]
    found["groups that are not known"] = json.dumps(others).encode()
    return found


@pytest.mark.slow
async def test_no_callback_takes_20_ms_of_the_loop(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d", "n1")["auth_token"]
    worst: dict[str, float] = {}
    with served(tmp_path / "d", node_rate=1000.0) as server:
        node = Client(session, server.url, token)
        operator = node.with_token(server.operator_token)

        async def watch(what: str, path: str, body: bytes = b"") -> None:
            async def ask() -> None:
                if body:
                    answer = await node.post(path, body, Content_Encoding="gzip")
                else:
                    answer = await operator.get(path)
                assert answer.status == 200

            worst[what] = await longest_callback(ask, "served")

        for what, body in bodies().items():
            await watch(what, "/v1/nodes/n1/metrics", gzipped(body))
        for path in QUESTIONS:
            await watch(path, path)

    assert {what: taken for what, taken in worst.items() if taken >= MOST_SECONDS} == {}
