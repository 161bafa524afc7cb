"""Backups of a running server and of a killed one, and the pause of writes for them."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd_server.errors import StartError
from plexd_server.store import DuckDBStore
from plexd_server.upkeep.quiesce import pausing_writes_on_request, writes_paused
from server.reporting import Node, numbered
from server.running import Client, command, create_node, running, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiohttp


async def test_a_backup_under_load_is_consistent(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data_dir, copy = tmp_path / "d", tmp_path / "copy"
    token = create_node(data_dir)["auth_token"]
    with served(data_dir, node_rate=0.0) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1), points=1)).status == 200
        copying = asyncio.create_task(
            asyncio.to_thread(command, "backup", copy, "--data-dir", data_dir)
        )
        seq = 1
        while not copying.done():
            seq += 1
            assert (await node.send(seq, numbered(seq), points=1)).status == 200
        await copying
        assert (await node.ledger())["received"] == seq

    opened = DuckDBStore(copy)
    received = (await opened.ledger("n1")).received
    await opened.aclose()
    assert 1 <= received <= seq
    assert not (data_dir / "backup.sock").exists()


async def test_reports_during_a_backup_are_accepted_and_shown_afterwards(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with served(tmp_path / "d") as server:
        node = Node(Client(session, server.url, token))
        with writes_paused(tmp_path / "d") as is_paused:
            assert is_paused
            points = (tmp_path / "d" / "points.duckdb").read_bytes()
            assert (await node.send(1, numbered(1), points=1)).status == 200
            assert (tmp_path / "d" / "points.duckdb").read_bytes() == points
            assert not (tmp_path / "d" / "points.duckdb.wal").exists()
        assert (await node.ledger())["received"] == 1


@pytest.mark.slow
def test_a_server_whose_writes_are_paused_can_be_stopped(tmp_path: Path) -> None:
    create_node(tmp_path / "d")
    with running(tmp_path / "d") as server, writes_paused(tmp_path / "d"):
        server.stop()

    assert server.process.returncode == 0


@pytest.mark.slow
def test_the_socket_of_a_killed_server_is_not_taken_for_a_server(tmp_path: Path) -> None:
    create_node(tmp_path / "d")
    with running(tmp_path / "d") as server:
        server.process.kill()
        server.process.wait(10)
        assert (tmp_path / "d" / "backup.sock").exists()
        with writes_paused(tmp_path / "d") as is_paused:
            assert not is_paused


@pytest.mark.slow
def test_a_backup_of_a_killed_server_has_what_was_only_in_its_journal(tmp_path: Path) -> None:
    token = create_node(tmp_path / "d")["auth_token"]

    async def report() -> None:
        import aiohttp  # noqa: PLC0415 -- for the annotation above it is a type only

        async with aiohttp.ClientSession() as session:
            node = Node(Client(session, server.url, token))
            assert (await node.send(1, numbered(1, 2), points=2)).status == 200

    with running(tmp_path / "d") as server:
        asyncio.run(report())
        server.process.kill()
        server.process.wait(10)
    command("backup", tmp_path / "copy", "--data-dir", tmp_path / "d")

    store = DuckDBStore(tmp_path / "copy")
    assert asyncio.run(store.ledger("n1")).received == 2
    store.close()


@pytest.mark.slow
def test_only_the_owner_may_use_the_socket_however_long_its_path(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    with running(deep):
        assert stat.S_IMODE((deep / "backup.sock").stat().st_mode) == 0o600
        with writes_paused(deep) as is_paused:
            assert is_paused


def test_the_wait_for_a_server_that_does_not_answer_is_bounded(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.fspath(tmp_path / "backup.sock"))
        silent.listen()

        with (
            pytest.raises(StartError, match="does not hold its points still: it does not answer"),
            writes_paused(tmp_path, answer_seconds=0.01),
        ):
            pass


@pytest.mark.usefixtures("servers_hold_still")
async def test_a_backup_that_asked_while_descriptors_ran_out_is_answered_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def hold(until: Callable[[], None]) -> None:
        until()

    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(0)
        async with pausing_writes_on_request(hold, tmp_path, clock):
            asking.connect(os.fspath(tmp_path / "backup.sock"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                await clock.advance(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert [record.message for record in caplog.records] == ["backup not heard"]
            await clock.advance(1)
            answer = await asyncio.get_running_loop().sock_recv(asking, 100)

    assert answer == b"still\n"
