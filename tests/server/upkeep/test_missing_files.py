"""Halves of a data directory: the start goes on with what is there, and says what is not."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from server.reporting import Node, numbered
from server.running import Client, command, create_node, running, served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiohttp


async def used(data: Path, session: aiohttp.ClientSession) -> tuple[str, str]:
    """A directory in which a server has kept two points; the node's token and its epoch."""
    token = create_node(data)["auth_token"]
    with served(data) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
    return token, node.epoch


def started(data: Path, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What a start says is missing."""
    caplog.clear()
    with served(data):
        pass
    return [vars(record) for record in caplog.records if record.message == "data missing"]


def files(said: Sequence[dict[str, Any]]) -> list[str]:
    return [each["file"] for each in said]


@pytest.mark.slow
async def test_points_that_are_gone_are_said_once_with_since_when(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d"
    before = datetime.now(UTC).replace(microsecond=0)
    await used(data, session)
    after = datetime.now(UTC)
    assert started(data, caplog) == []
    (data / "points.duckdb").unlink()

    (said,) = started(data, caplog)
    assert said["file"] == "points.duckdb"
    assert before <= datetime.fromisoformat(said["since"]) <= after
    assert "backup" in said["hint"]
    assert said["levelname"] == "WARNING"
    assert started(data, caplog) == []


async def test_points_without_their_journal_are_missing_beside_the_registry_alone(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d"
    await used(data, session)
    (data / "points.duckdb").unlink()
    shutil.rmtree(data / "journal")

    assert files(started(data, caplog)) == ["points.duckdb"]


@pytest.mark.slow
def test_a_registry_before_the_first_start_misses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_node(tmp_path / "d")

    assert started(tmp_path / "d", caplog) == []
    assert started(tmp_path / "other", caplog) == []


@pytest.mark.slow
async def test_a_registry_that_is_gone_is_said_beside_points_and_beside_a_journal(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d"
    await used(data, session)
    (data / "registry.db").unlink()
    assert files(started(data, caplog)) == ["registry.db"]
    for name in ("registry.db", "points.duckdb"):
        (data / name).unlink()

    assert files(started(data, caplog)) == ["points.duckdb", "registry.db"]


async def test_a_command_that_makes_a_registry_beside_points_says_so(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    await used(data, session)
    (data / "registry.db").unlink()

    made = command("token", "create", "--data-dir", data)
    again = command("token", "create", "--data-dir", data)

    assert "has points and had no registry" in made.stderr
    assert "had no registry" not in again.stderr


@pytest.mark.slow
async def test_a_journal_that_is_gone_is_said_beside_points_as_in_a_backup(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d"
    await used(data, session)
    command("backup", tmp_path / "copy", "--data-dir", data)

    (said,) = started(tmp_path / "copy", caplog)
    assert said["file"] == "journal"
    age = datetime.now(UTC) - datetime.fromisoformat(said["since"])
    assert timedelta(0) <= age < timedelta(minutes=5)


async def test_a_backup_of_the_registry_alone_says_that_it_has_no_points(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d"
    await used(data, session)
    command("backup", tmp_path / "copy", "--registry-only", "--data-dir", data)

    assert files(started(tmp_path / "copy", caplog)) == ["points.duckdb"]


@pytest.mark.slow
async def test_what_the_journal_has_is_kept_when_the_points_are_gone(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    token, _ = await used(data, session)
    with running(data) as server:
        client = Client(session, server.url, token)
        node = Node(client)
        assert (await node.send(1, numbered(3, 4, 5), points=3)).status == 200
        assert (await client.get("/v1/nodes/n1/latest")).status == 200  # the tables have them
        server.process.kill()
    (segment,) = (data / "journal").iterdir()
    assert int(segment.stem) > 1
    for path in data.glob("points.duckdb*"):
        path.unlink()

    with served(data) as started:
        client = Client(session, started.url, token)
        again = await Node(client).send(1, numbered(9), points=1)
        repeated = await repeat(client, node)
        ledger = (await client.get("/v1/nodes/n1/ledger")).json
    assert (again.status, repeated) == (200, True)
    assert ledger["received"] == 4


async def repeat(client: Client, node: Node) -> bool:
    """Send the batch again that was answered before the kill."""
    node.client = client
    answer = await node.send(1, numbered(3, 4, 5), points=3)
    return bool(answer.json["duplicate"])
