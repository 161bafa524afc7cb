"""Hundreds of slow connections, and other clients that are answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from server.running import Client, connected, create_node, served
from support.points import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

METRICS = "/v1/nodes/n1/metrics"
EACH = 60


def beginnings(token: str) -> dict[str, bytes]:
    """What each kind sends before it waits."""
    report = (
        f"POST {METRICS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n["
    )
    application = (
        "POST /v1/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n{"
    )
    stranger = f"POST {METRICS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n["
    page = "GET /static/app.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
    return {
        "idle": b"",
        "head": b"GET / HTTP/1.1\r\nHost: lo",
        "body of a node": report.encode(),
        "body of an application": application.encode(),
        "body of a stranger": stranger.encode(),
        "reading": page.encode(),
    }


async def test_other_clients_are_answered_beside_hundreds_of_slow_ones(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    slow, healthy = (create_node(tmp_path / "d", name)["auth_token"] for name in ("n1", "n2"))
    with served(tmp_path / "d") as server, ExitStack() as crowd:
        for beginning in beginnings(slow).values():
            for _ in range(EACH):
                crowd.enter_context(connected(server.url)).sendall(beginning)
        node = Client(session, server.url, healthy)
        for _ in range(20):
            assert (await node.post("/v1/nodes/n2/metrics", EXAMPLE.to_json())).status == 200
            assert (await node.get("/healthz")).status == 200
        refused = await Client(session, server.url, slow).post(METRICS, EXAMPLE.to_json())
        assert refused.status == 429  # its own slow reports are under way
        crowd.close()
        async with asyncio.timeout(10):
            while (await Client(session, server.url, slow).post(METRICS, b"[]")).status != 200:
                pass


@pytest.mark.slow
def test_a_report_refused_beforehand_has_less_time(
    tmp_path: Path,
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    beginning = beginnings(token)["body of a node"]
    with served(tmp_path / "d") as server, ExitStack() as under_way:
        for _ in range(4):
            waiting = under_way.enter_context(connected(server.url))
            waiting.sendall(beginning.replace(b"\r\n\r\n[", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert b"100 Continue" in waiting.recv(1000)  # the server is reading the body
        with connected(server.url) as refused:
            began = time.monotonic()
            refused.sendall(beginning)
            assert refused.recv(1000).startswith(b"HTTP/1.1 429")
            assert time.monotonic() - began < 9  # it is 2 s, and 20 s for the others
