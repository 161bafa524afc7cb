"""No point is lost or doubled while servers are killed, stopped, restored and overrun."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import aiohttp
import pytest

from server.reporting import Node, numbered
from server.running import Client, create_node, running, served

if TYPE_CHECKING:
    from pathlib import Path

    from server.running import Answer

NODES = 60
BACKLOG = 5


@pytest.mark.slow
async def test_a_batch_of_which_the_answer_was_lost_in_a_kill_is_a_duplicate_afterwards(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with running(tmp_path / "d") as server:
        node = Node(Client(session, server.url, token))
        await node.send(1, numbered(1, 2), points=2)
        server.process.kill()
        server.process.wait(10)
    with served(tmp_path / "d") as server:
        node.client = Client(session, server.url, token)
        again = await node.send(1, numbered(1, 2), points=2)

        assert (again.json["accepted"], again.json["duplicate"]) == (2, True)
        assert await node.loads() == [1, 2]


@pytest.mark.slow
async def test_a_server_restored_from_an_older_copy_shows_what_it_lost_as_a_gap(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with served(tmp_path / "d") as server:
        node = Node(Client(session, server.url, token))
        await node.send(1, numbered(1), points=1)
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    with served(tmp_path / "d") as server:
        node.client = Client(session, server.url, token)
        for seq in (2, 3):
            await node.send(seq, numbered(seq), points=1)
    with served(tmp_path / "copy") as server:
        node.client = Client(session, server.url, token)
        await node.send(4, numbered(4), points=1)
        ledger = await node.ledger()

        assert await node.loads() == [1, 4]
        (loss,) = ledger["losses"]
        assert (loss["reason"], loss["points"]) == ("gap", 2)
        assert (loss["since"], loss["until"]) == ("2026-02-12T10:31:00Z", "2026-02-12T10:34:00Z")


async def settled(node: Node, seq: int) -> Answer:
    """The final answer: one that says to come back later is no reason to give up."""
    while (answer := await node.send(seq, numbered(seq), points=1)).status in {429, 503}:
        continue
    return answer


class Sender:
    """Send batch after batch until the server stops answering; report when ten have arrived."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.count = 0
        self.ten_came = asyncio.Event()

    async def run(self) -> None:
        self.ten_came.clear()
        began = self.count
        try:
            while True:
                await settled(self.node, self.count + 1)
                self.count += 1
                if self.count == began + 10:
                    self.ten_came.set()
        except (aiohttp.ClientError, ConnectionError):
            return


@pytest.mark.slow
async def test_batches_sent_across_graceful_restarts_come_exactly_once(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    sender = Sender(Node(Client(session, "", token)))
    for _ in range(4):
        with running(tmp_path / "d") as server:
            sender.node.client = Client(session, server.url, token)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sender.run())
                await sender.ten_came.wait()
                assert await asyncio.to_thread(server.stop) == 0
    with served(tmp_path / "d") as server:
        sender.node.client = Client(session, server.url, token)
        await settled(sender.node, sender.count + 1)
        ledger = await sender.node.ledger()
        loads = await sender.node.loads()

    assert (ledger["received"], ledger["gap"]) == (sender.count + 1, 0)
    assert loads == [float(number) for number in range(1, sender.count + 2)]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["64MB"])
async def test_a_herd_with_a_backlog_is_stored_whole(tmp_path: Path, memory: str) -> None:
    tokens = {f"n{i}": create_node(tmp_path / "d", f"n{i}")["auth_token"] for i in range(NODES)}
    connector = aiohttp.TCPConnector(limit=0)
    with served(tmp_path / "d", store_memory=memory) as server:
        async with aiohttp.ClientSession(connector=connector) as session:
            herd = [Node(Client(session, server.url, t), name) for name, t in tokens.items()]

            async def drain(node: Node) -> list[Answer]:
                return [await settled(node, seq + 1) for seq in range(BACKLOG)]

            answers = await asyncio.gather(*map(drain, herd))
            ledgers = [await node.ledger() for node in herd]

    assert {answer.status for sent in answers for answer in sent} == {200}
    assert {(ledger["received"], ledger["gap"]) for ledger in ledgers} == {(BACKLOG, 0)}
