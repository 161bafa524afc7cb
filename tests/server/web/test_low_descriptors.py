"""A server whose hard limit of open files is low: it says so, and a flood costs a few lines."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from server.running import Client, connected, create_node, running

if TYPE_CHECKING:
    from pathlib import Path

MOST_LINES = 10


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "connections"), [(64, 32), (256, 128), (1024, 768)])
async def test_a_flood_is_bounded_and_named_and_passes(
    tmp_path: Path, limit: int, connections: int
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with running(data, descriptors=limit) as server, ExitStack() as flood:
        for _ in range(connections + 200):
            flood.enter_context(connected(server.url))
        await asyncio.to_thread(until_closed_at_once, server.url)
        held = len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: PTH208 -- briefly
        flood.close()
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            node = Client(session, server.url, token)
            while await status(node, "/v1/nodes/n1/latest") != 200:
                pass
    log = (tmp_path / "d.log").read_text()

    assert connections // 2 <= held < limit  # one address has at most half
    assert f'msg="few descriptors" component=server limit={limit} connections={connections}' in log
    assert 'msg="too many connections"' in log
    assert "Traceback" not in log
    assert log.count("\n") <= MOST_LINES


def until_closed_at_once(url: str) -> None:
    """Return once one more connection has no answer but its end."""
    for _ in range(1000):
        with connected(url) as one, suppress(ConnectionError):
            one.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            if one.recv(1):
                continue
        return
    raise AssertionError("no connection was refused")


async def status(client: Client, path: str) -> int:
    try:
        return (await client.get(path)).status
    except aiohttp.ClientError:
        return 0
