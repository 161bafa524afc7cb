from __future__ import annotations

import asyncio
import gc
import select
import socket
import struct
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock
from plexd_server.web.limits import InFlight
from plexd_server.web.listeners import Address, bind
from plexd_server.web.protocol import BoundedProtocol
from plexd_server.web.server import serving

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"


async def test_a_sender_that_never_ends_is_cut_off_after_the_grace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        reading.set()
        while (await receive()).get("more_body"):
            pass

    listening = bind(Address("127.0.0.1", 0))
    port = listening.getsockname()[1]
    async with asyncio.timeout(20):
        async with serving(app, [listening], grace_seconds=0.2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF)
            await reading.wait()
        writer.close()

    assert [record.message for record in caplog.records] == ["requests cut off"]


async def answer_when_the_body_is_there(scope: Any, receive: Any, send: Any) -> None:
    del scope
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_a_connection_that_never_ends_a_request_s_head_is_cut_and_all_others_kept() -> None:
    listening = bind(Address("127.0.0.1", 0))
    port = listening.getsockname()[1]
    async with (
        asyncio.timeout(20),
        serving(answer_when_the_body_is_there, [listening], grace_seconds=0.2, head_seconds=0.3),
    ):
        kept, slow, half, silent, again = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(5)
        ]
        kept[1].write(WHOLE)
        assert (await kept[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        slow[1].write(HALF)
        half[1].write(HALF[:20])
        again[1].write(WHOLE + HALF[:20])
        assert (await again[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")

        assert await again[0].read() == b""
        assert await silent[0].read() == b""
        assert await half[0].read() == b""
        kept[1].write(WHOLE)
        assert (await kept[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        slow[1].write(b"whole")
        assert (await slow[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for _, writer in (kept, slow, half, silent, again):
            writer.close()


async def answer_at_once(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the end, which may be a reset."""
    heard = b""
    with suppress(ConnectionError):
        while piece := await reader.read(10_000):
            heard += piece
    return heard


@pytest.mark.parametrize("piece", [b"x", b"x" * 10_000], ids=["slowly", "fast"])
async def test_a_body_that_goes_on_after_the_answer_has_an_end_and_no_answer_of_its_own(
    piece: bytes,
) -> None:
    listening = bind(Address("127.0.0.1", 0))
    endless = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    async with (
        asyncio.timeout(20),
        serving(answer_at_once, [listening], grace_seconds=0.2, head_seconds=0.5),
    ):
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(endless)
        answers = asyncio.create_task(_heard(reader))
        with suppress(ConnectionError):
            while not answers.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    assert (await answers).count(b"HTTP/1.1 ") == 1


async def answer_at_length_and_give_up(scope: Any, receive: Any, send: Any) -> None:
    """End as `InFlight` ends a request that takes too long."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            while True:
                await send({"type": "http.response.body", "body": bytes(10**6), "more_body": True})


async def test_an_unread_answer_keeps_no_connection_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listening = bind(Address("127.0.0.1", 0))
    async with (
        asyncio.timeout(20),
        serving(answer_at_length_and_give_up, [listening], grace_seconds=10, flush_seconds=0.3),
    ):
        with socket.create_connection(listening.getsockname()) as unread:
            unread.sendall(WHOLE)
            poll = select.poll()
            poll.register(unread, 0)  # only for its end: a read would consume the answer
            assert await asyncio.to_thread(poll.poll, 10_000)
    assert caplog.records == []


async def test_a_client_that_went_away_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    gone, ended = asyncio.Event(), asyncio.Event()

    async def answer_in_many_pieces(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await gone.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(100), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    listening = bind(Address("127.0.0.1", 0))
    async with (
        asyncio.timeout(20),
        serving(answer_in_many_pieces, [listening], grace_seconds=10),
    ):
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(WHOLE)
        gone.set()
        await ended.wait()
    assert caplog.records == []


async def test_a_connection_reset_after_its_answer_leaves_nothing_behind() -> None:
    listening = bind(Address("127.0.0.1", 0))
    async with (
        asyncio.timeout(20),
        serving(answer_at_once, [listening], grace_seconds=10),
    ):
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(WHOLE)
            await reader.readuntil(b"0\r\n\r\n")
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        for _ in range(20):  # the server notices after a few turns
            await asyncio.sleep(0.01)
        gc.collect()
        assert not any(isinstance(found, BoundedProtocol) for found in gc.get_objects())


async def test_idle_connections_alone_do_not_deny_service() -> None:
    listening = bind(Address("127.0.0.1", 0))
    address = listening.getsockname()
    async with (
        asyncio.timeout(30),
        serving(answer_when_the_body_is_there, [listening], grace_seconds=0.2),
    ):
        with ExitStack() as idle:
            for _ in range(2000):
                idle.enter_context(socket.create_connection(address))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(WHOLE)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            writer.close()


async def test_requests_over_the_bound_are_refused_with_503() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    statuses = list[int]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        entered.set()
        await leave.wait()
        await send({"type": "http.response.start", "status": 200})

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    bounded: Any = InFlight(app, SystemClock(), requests=1)
    first = asyncio.create_task(bounded({}, None, note))
    await entered.wait()
    await bounded({}, None, note)
    leave.set()
    await first
    await bounded({}, None, note)

    assert statuses == [503, 200, 200]


async def test_an_answer_that_is_not_ready_within_a_minute_is_503() -> None:
    statuses = list[int]()
    entered, clock = asyncio.Event(), ManualClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        entered.set()
        await asyncio.Event().wait()

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    bounded: Any = InFlight(app, clock)
    task = asyncio.create_task(bounded({}, None, note))
    await entered.wait()
    await clock.advance(60)
    await task

    assert statuses == [503]
