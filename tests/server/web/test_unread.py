"""Answers that nobody reads, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plexd.clock import SystemClock
from plexd_server.web.limits import InFlight
from plexd_server.web.listeners import Address, bind
from plexd_server.web.server import serving
from plexd_server.web.unread import UnreadAnswers

MIB = 1024 * 1024


class Client:
    """Reads an answer when it is told to."""

    def __init__(self, *, is_reading: bool = True) -> None:
        self.reads = asyncio.Event()
        self.messages: list[Any] = []
        if is_reading:
            self.reads.set()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            await self.reads.wait()

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


def answering(body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


def asked_from(address: str) -> Any:
    return {"type": "http", "client": (address, 1)}


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 65_536, 65_537, 300_000])
async def test_an_answer_arrives_whole_and_ends_once(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    client = Client()
    await UnreadAnswers(answering(body[:size]))(asked_from("192.0.2.1"), None, client.send)  # type: ignore[arg-type]

    assert client.body == body[:size]
    assert [each["more_body"] for each in client.messages[1:]][-1] is False
    assert sum(not each["more_body"] for each in client.messages[1:]) == 1
    assert max(len(each["body"]) for each in client.messages[1:]) <= 65_536


async def test_unread_bytes_of_one_sender_are_bounded_and_others_are_answered() -> None:
    app: Any = UnreadAnswers(answering(bytes(MIB)), total_bytes=8 * MIB)
    idle = [Client(is_reading=False) for _ in range(6)]
    async with asyncio.TaskGroup() as tasks:
        for client in idle:
            tasks.create_task(app(asked_from("2001:db8::1"), None, client.send))
            await asyncio.sleep(0)
        other = Client()
        await app(asked_from("2001:db8:1::1"), None, other.send)
        statuses = [client.status for client in idle]
        for client in idle:
            client.reads.set()
    again = Client()
    await app(asked_from("2001:db8::1"), None, again.send)

    assert statuses == [200] * 4 + [503] * 2
    assert (other.status, again.status) == (200, 200)


async def test_what_was_reserved_is_free_again_when_a_client_is_cut_off() -> None:
    app: Any = UnreadAnswers(answering(bytes(MIB)), total_bytes=2 * MIB)
    for _ in range(3):
        client = Client(is_reading=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await app(asked_from("192.0.2.1"), None, client.send)
        assert client.status == 200


async def test_a_request_is_under_way_until_the_kernel_has_its_whole_answer() -> None:
    listening = bind(Address("127.0.0.1", 0))
    app: Any = InFlight(UnreadAnswers(answering(bytes(8 * MIB))), SystemClock(), requests=4)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with asyncio.timeout(20), serving(app, [listening], grace_seconds=0.2):
        address = listening.getsockname()
        connections = [await asyncio.open_connection(*address, limit=1000) for _ in range(3)]
        for _, writer in connections:
            writer.write(request)
        heads = [await reader.readline() for reader, _ in connections]
        assert sorted(head[9:12] for head in heads) == [b"200", b"200", b"503"]
        for _, writer in connections:
            writer.transport.abort()
