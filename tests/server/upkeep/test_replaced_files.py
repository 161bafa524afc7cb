"""What is taken away under a running server, and put back: nothing is acknowledged in vain."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from server.reporting import Node, numbered
from server.running import Client, create_node, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiohttp

    Strike = Callable[[Path], None]


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def put_back(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.with_name("moved").rename(path)


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    if path.is_dir():
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("*.sock"))
    else:
        shutil.copy(path, copy)
    move(path)
    copy.rename(path)


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


NAMES = ["", "points.duckdb", "registry.db", "journal"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strike", [move, replace_by_a_copy])
async def test_reports_are_refused_until_what_was_moved_is_back(
    tmp_path: Path,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    name: str,
    strike: Strike,
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with served(data) as server:
        client = Client(session, server.url, token)
        node = Node(client)
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
        strike(data / name)
        refused = [await node.send(3, numbered(3), points=1) for _ in range(3)]
        health = [(await client.get(path)).status for path in ("/readyz", "/healthz", "/livez")]
        put_back(data / name)
        accepted = await node.send(3, numbered(3), points=1)
        ready = await client.get("/readyz")
    said = [vars(r)["error"] for r in caplog.records if r.message == "the store fails"]

    assert [(each.status, each.headers["Retry-After"]) for each in refused] == [(503, "2")] * 3
    assert health == [503, 503, 200]
    assert "moved, deleted or replaced; put it back" in said[0]
    assert len(said) <= 2
    assert (accepted.status, accepted.json["duplicate"], ready.status) == (200, False, 200)
    assert await received(data, session, token) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strike", [delete, replace_by_a_copy])
async def test_what_was_acknowledged_after_it_was_taken_away_is_nothing(
    tmp_path: Path, session: aiohttp.ClientSession, name: str, strike: Strike
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with served(data) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
        strike(data / name)
        statuses = {(await node.send(3, numbered(3), points=1)).status for _ in range(5)}

    assert statuses == {503}
    if strike is replace_by_a_copy:  # the old server, as it ended, changed nothing of the copy
        assert await received(data, session, token) == 2


async def test_a_segment_that_is_deleted_costs_one_refusal_and_no_point(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with served(data) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
        for segment in (data / "journal").iterdir():
            segment.unlink()
        answers = [(await node.send(3, numbered(3), points=1)).status for _ in range(3)]

    assert answers == [503, 200, 200]
    assert await received(data, session, token) == 3


async def test_no_node_and_no_session_is_written_to_a_registry_that_was_replaced(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    create_node(data)
    with served(data) as server:
        replace_by_a_copy(data / "registry.db")
        operator = Client(session, server.url, server.operator_token)
        nodes = await operator.get("/v1/nodes")
        login = await operator.get(f"/login?token={server.operator_token}")

    assert (nodes.status, login.status) == (503, 503)


async def received(data: Path, session: aiohttp.ClientSession, token: str) -> int:
    """How many points a start finds."""
    with served(data) as server:
        ledger = await Client(session, server.url, token).get("/v1/nodes/n1/ledger")
    return int(ledger.json["received"])
