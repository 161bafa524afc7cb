"""Whose handshake begins, and whose is cut off."""

from __future__ import annotations

import asyncio

from plexd_server.web.handshake_queue import HandshakeQueue


class ScriptedClient:
    """A client that notes what happens to it."""

    def __init__(self, sender: str, log: list[str], number: int = 0) -> None:
        self.sender = sender
        self.name = f"{sender}{number}"
        self.ended: asyncio.Future[None] | None = None
        self._log = log

    def begin(self, ended: asyncio.Future[None]) -> None:
        self.ended = ended
        self._log.append(self.name)

    def abort(self) -> None:
        self._log.append(f"cut {self.name}")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_senders_take_turns_and_each_turn_of_the_loop_begins_one() -> None:
    log = list[str]()
    queue = HandshakeQueue()
    for number in range(3):
        queue.add(ScriptedClient("a", log, number))
    queue.add(ScriptedClient("b", log))
    await turns(1)
    assert log == ["a0"]
    await turns(5)
    assert log == ["a0", "b0", "a1", "a2"]


async def test_a_client_that_is_gone_is_skipped() -> None:
    log = list[str]()
    queue = HandshakeQueue()
    clients = [ScriptedClient("a", log, number) for number in range(3)]
    for client in clients:
        queue.add(client)
    queue.remove(clients[0])
    queue.remove(clients[0])
    await turns(1)
    queue.remove(clients[2])
    await turns(3)
    assert log == ["a1"]
    queue.add(clients[2])
    await turns(1)
    assert log == ["a1", "a2"]


async def test_the_oldest_of_the_sender_with_the_most_is_cut_off_for_one_more() -> None:
    log = list[str]()
    queue = HandshakeQueue(most=3)
    for client in (ScriptedClient("b", log), *(ScriptedClient("a", log, n) for n in range(4))):
        queue.add(client)
    await turns(6)
    assert log == ["b0", "a0", "a1", "cut a0", "a2", "cut a1", "a3"]


async def test_a_handshake_that_has_ended_makes_room_whatever_its_outcome() -> None:
    log = list[str]()
    queue = HandshakeQueue(most=2)
    clients = [ScriptedClient("a", log, number) for number in range(4)]
    for client in clients[:2]:
        queue.add(client)
    await turns(3)
    first, second = (client.ended for client in clients[:2])
    assert first is not None
    assert second is not None
    first.set_result(None)
    second.set_exception(OSError("reset"))
    await turns(1)
    for client in clients[2:]:
        queue.add(client)
    await turns(3)
    assert log == ["a0", "a1", "a2", "a3"]
