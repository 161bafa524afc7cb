"""A report cut at every single byte, in both directions, and what its receiver makes of it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, BatchName, Config, ControlPlane, MetricBatch, TransportError
from plexd.metrics.retry import Action, decide
from support.points import EPOCH, EXAMPLE, named
from support.servers import Connection, RawServer, Reply, ScriptedServer, http_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

NAME = re.compile(rb"Plexd-Batch: (\S+)")
SOON = timedelta(milliseconds=200)
GENEROUS = 10.0


class Oracle:
    """A server that counts each batch by its name, behind a line that can be cut.

    ``request_cut`` and ``answer_cut`` say after how many bytes the next connection is reset.
    """

    def __init__(self) -> None:
        self.received: Counter[bytes] = Counter()
        self.request_cut: int | None = None
        self.answer_cut: int | None = None

    async def talk(self, connection: Connection) -> None:
        if (cut := self.request_cut) is not None:
            self.request_cut = None
            await connection.reader.readexactly(cut)
            connection.reset()
            return
        while True:
            self.take(await connection.request())
            answer = http_answer(body=b'{"accepted":3}')
            cut, self.answer_cut = self.answer_cut, None
            await connection.send(answer[:cut])
            if cut is not None:
                connection.reset()
                return

    def take(self, request: bytes) -> None:
        found = NAME.search(request)
        assert found is not None
        self.received[found[1]] += 1


def client(url: str, **changes: timedelta) -> ControlPlane:
    return ControlPlane(Config(url, auth_token="hunter2-canary", **changes))  # type: ignore[arg-type]  # times only


async def deliver(plane: ControlPlane, batch: MetricBatch) -> int:
    """Send until it is accepted, as the policy says; how many attempts it took."""
    attempt = 0
    while True:
        try:
            await plane.report_metrics("node-1", batch)
        except Exception as err:
            if decide(err, attempt).action is not Action.RETRY:
                raise
            attempt += 1
        else:
            return attempt + 1


async def length_of_a_request() -> int:
    length = 0

    async def talk(connection: Connection) -> None:
        nonlocal length
        length = len(await connection.request())
        await connection.send(http_answer())

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", named(EXAMPLE))
    return length


@pytest.mark.slow
async def test_a_request_reset_at_any_byte_is_sent_again_and_arrives_once() -> None:
    oracle = Oracle()
    length = await length_of_a_request()
    assert length > 400
    async with RawServer(oracle.talk) as server:
        for cut in range(length):
            oracle.request_cut = cut
            async with client(server.url) as plane:
                assert await deliver(plane, named(EXAMPLE, 3 * cut + 1)) == 2
    assert len(oracle.received) == length
    assert set(oracle.received.values()) == {1}


@pytest.mark.parametrize("kept", [False, True])
async def test_an_answer_reset_at_any_byte_has_the_report_sent_again(*, kept: bool) -> None:
    oracle = Oracle()
    length = len(http_answer(body=b'{"accepted":3}'))
    async with RawServer(oracle.talk) as server:
        for cut in range(length):
            async with client(server.url) as plane:
                if kept:
                    await plane.report_metrics("node-1", named(EXAMPLE, 100_000))
                oracle.answer_cut = cut
                attempts = await deliver(plane, named(EXAMPLE, 3 * cut + 1))
                # On a connection used before, the one silent repetition is not an attempt.
                assert attempts == 2 or (kept and attempts == 1)
    del oracle.received[str(BatchName(EPOCH, 100_000, 3)).encode()]
    assert len(oracle.received) == length
    assert set(oracle.received.values()) == {2}


async def test_a_kept_connection_that_is_closed_costs_one_repetition_of_the_same_batch() -> None:
    names: list[bytes] = []

    async def talk(connection: Connection) -> None:
        while True:
            found = NAME.search(await connection.request())
            assert found is not None
            names.append(found[1])
            if connection.number == 0 and len(names) == 2:
                return
            await connection.send(http_answer())

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", named(EXAMPLE, 1))
        await plane.report_metrics("node-1", named(EXAMPLE, 4))
    assert [name.partition(b"first=")[2][:1] for name in names] == [b"1", b"4", b"4"]


async def test_a_server_that_reads_a_byte_at_a_time_ends_at_the_deadline() -> None:
    async def sip(connection: Connection) -> None:
        while True:
            await connection.reader.readexactly(1)
            await asyncio.sleep(0.01)

    body = os.urandom(8 * 2**20)  # more than all buffers on the way
    batch = MetricBatch.of_json(body, BatchName(EPOCH, 1, 1))
    async with RawServer(sip) as server, client(server.url, request_timeout=SOON) as plane:
        async with asyncio.timeout(GENEROUS):
            with pytest.raises(TransportError, match=r"no complete answer within 0.2s"):
                await plane.report_metrics("node-1", batch)


async def test_connections_that_are_not_accepted_end_at_the_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:  # once the queue is full, the kernel drops every SYN
                one.settimeout(0)
                one.connect_ex(address)
            url = f"http://127.0.0.1:{address[1]}"
            async with client(url, connect_timeout=SOON) as plane, asyncio.timeout(GENEROUS):
                with pytest.raises(TransportError, match=r"no connection within 0.2s"):
                    await plane.report_metrics("node-1", EXAMPLE)
        finally:
            for one in waiting:
                one.close()


# A complete 2xx is an acknowledgement, whatever its body

BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "nothing": (b"", {}),
    "HTML": (b"<html>It works!</html>", {"Content-Type": "text/html"}),
    "half of a document": (b'{"accepted": 3, "dup', {"Content-Type": "application/json"}),
    "another batch's number": (b'{"upto": 99}', {"Content-Type": "application/json"}),
    "what claims to be gzip": (b"not gzip", {"Content-Encoding": "gzip"}),
    "what claims to be brotli": (b"not brotli", {"Content-Encoding": "br"}),
    "an unknown coding": (b"?", {"Content-Encoding": "plexd-unheard-of"}),
    "broken UTF-8": (b"\xff\xfe\x00", {"Content-Type": "application/json; charset=utf-8"}),
}


@pytest.mark.parametrize("status", [200, 201, 202, 299])
@pytest.mark.parametrize("name", BODIES)
async def test_the_body_of_an_acknowledgement_is_not_looked_at(name: str, status: int) -> None:
    body, headers = BODIES[name]
    async with ScriptedServer(Reply(status, body, headers)) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        await plane.report_metrics("node-1", EXAMPLE)
        assert plane.reconnect_count() == 0


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_an_answer_without_a_body_is_complete_without_a_length(status: int) -> None:
    async def talk(connection: Connection) -> None:
        while True:
            await connection.request()
            end = b"Content-Length: 0\r\n\r\n" if status == 205 else b"\r\n"
            await connection.send(b"HTTP/1.1 %d X\r\n" % status + end)

    async with RawServer(talk) as server, client(server.url) as plane:
        for _ in range(2):
            if status == 304:
                with pytest.raises(APIError, match="HTTP 304"):
                    await plane.report_metrics("node-1", EXAMPLE)
            else:
                await plane.report_metrics("node-1", EXAMPLE)


async def test_an_acknowledgement_of_ten_gigabytes_is_one_and_is_not_read() -> None:
    sent = 0

    async def talk(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        block = b"x" * 65_536
        while sent < 10**10:
            await connection.send(block)
            sent += len(block)

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        await plane.report_metrics("node-1", EXAMPLE)
    assert sent < 32 * 2**20


# Names and addresses


def record(host: str, port: int) -> tuple[object, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))


def look_up_with(monkeypatch: pytest.MonkeyPatch, lookup: Callable[..., Awaitable[object]]) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_NONAME])
async def test_a_name_server_that_fails_is_retried(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def fail(*_: object, **__: object) -> object:
        raise socket.gaierror(number, "resolver trouble")

    look_up_with(monkeypatch, fail)
    async with client("http://plane.example") as plane:
        with pytest.raises(TransportError, match="resolver trouble") as caught:
            await plane.report_metrics("node-1", EXAMPLE)
    assert decide(caught.value, 0).action is Action.RETRY


async def test_a_name_server_that_hangs_ends_at_the_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_: object, **__: object) -> object:
        return await asyncio.Event().wait()

    look_up_with(monkeypatch, hang)
    async with client("http://plane.example", connect_timeout=SOON) as plane:
        with pytest.raises(TransportError, match=r"no connection within 0.2s"):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_an_address_that_has_changed_is_looked_up_with_the_next_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedServer() as first, ScriptedServer() as second:
        port = first.port

        async def lookup(*_: object, **__: object) -> object:
            return [record("127.0.0.1", port)]

        look_up_with(monkeypatch, lookup)
        async with client("http://plane.example") as plane:
            await plane.report_metrics("node-1", EXAMPLE)
            await first.stop()
            port = second.port
            await deliver(plane, EXAMPLE)
        assert len(second.requests) == 1


async def test_of_a_hundred_addresses_one_that_answers_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedServer() as server:

        async def lookup(*_: object, **__: object) -> object:
            dead = [record(f"127.1.0.{i}", server.port) for i in range(1, 100)]
            return [*dead, record("127.0.0.1", server.port)]

        look_up_with(monkeypatch, lookup)
        async with client("http://plane.example") as plane:
            await plane.report_metrics("node-1", EXAMPLE)


async def test_a_server_on_ipv6_alone_is_reached() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(0, reader, writer).request()
        writer.write(http_answer())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    try:
        server = await asyncio.start_server(talk, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server, client(f"http://[::1]:{server.sockets[0].getsockname()[1]}") as plane:
        await plane.report_metrics("node-1", EXAMPLE)


# Asking for patience twice

TWICE: dict[tuple[str, ...], timedelta | None] = {
    ("5", "60"): timedelta(seconds=5),
    ("60", "5"): timedelta(seconds=60),
    ("soon", "5"): None,
}


@pytest.mark.parametrize("values", TWICE)
async def test_of_two_waits_asked_for_the_first_counts(values: tuple[str, ...]) -> None:
    lines = [f"Retry-After: {value}" for value in values]

    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(http_answer("503 Busy", b"", *lines))

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(APIError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
    assert caught.value.retry_after == TWICE[values]
