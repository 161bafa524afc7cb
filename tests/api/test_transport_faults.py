"""Connections that are refused, cut, reused, slow or full of garbage."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, Config, ControlPlane, HTTPTransport, TransportError, Trust
from support.points import EXAMPLE, latency_batch
from support.servers import Connection, RawServer, Reply, ScriptedServer, http_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

TOKEN = "hunter2-canary"
SOON = timedelta(milliseconds=150)
LATE = timedelta(seconds=10)
GENEROUS = 5.0  # seconds a loaded machine may need for what should take SOON


def client(
    url: str, *, request_timeout: timedelta = LATE, connect_timeout: timedelta = LATE
) -> ControlPlane:
    return ControlPlane(
        Config(
            url,
            auth_token=TOKEN,
            request_timeout=request_timeout,
            connect_timeout=connect_timeout,
        )
    )


async def hang(_: object) -> None:
    await asyncio.Event().wait()


# Connections kept and lost


async def test_reports_share_one_connection() -> None:
    async with ScriptedServer() as server, client(server.url) as plane:
        for _ in range(5):
            await plane.report_metrics("node-1", EXAMPLE)
        assert len({request.client_port for request in server.requests}) == 1
        assert plane.reconnect_count() == 0


async def test_before_the_first_connection_there_is_no_reconnect() -> None:
    async with client("http://127.0.0.1:9") as plane:
        assert plane.reconnect_count() == 0


async def test_a_server_that_closes_each_time_costs_reconnects_but_no_report() -> None:
    async with (
        ScriptedServer(Reply(headers={"Connection": "close"})) as server,
        client(server.url) as plane,
    ):
        for _ in range(3):
            await plane.report_metrics("node-1", EXAMPLE)
        assert len(server.requests) == 3
        assert plane.reconnect_count() == 2


async def test_concurrent_reports_all_arrive() -> None:
    async with ScriptedServer() as server, client(server.url) as plane:
        await asyncio.gather(*[plane.report_metrics(f"node-{i}", EXAMPLE) for i in range(30)])
        assert len({request.target for request in server.requests}) == 30


async def answer_once_then(connection: Connection, then: Callable[[], Awaitable[None]]) -> None:
    await connection.request()
    await connection.send(http_answer())
    await connection.request()
    await then()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_kept_connection_that_turns_out_closed_is_replaced_silently(*, reset: bool) -> None:
    async def talk(connection: Connection) -> None:
        async def leave() -> None:
            if reset:
                connection.reset()

        if connection.number == 0:
            await answer_once_then(connection, leave)
        else:
            await connection.request()
            await connection.send(http_answer())

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        await plane.report_metrics("node-1", EXAMPLE)
        assert server.connections == 2
        assert plane.reconnect_count() == 1


async def test_a_server_restarted_in_between_is_reached_again() -> None:
    async with ScriptedServer() as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        await server.stop()
        with pytest.raises(TransportError):
            await plane.report_metrics("node-1", EXAMPLE)
        await server.start()
        await plane.report_metrics("node-1", EXAMPLE)
        assert len(server.requests) == 2
        assert plane.reconnect_count() == 1


async def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async def talk(connection: Connection) -> None:
        await connection.request()

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(TransportError, match="Server disconnected"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert server.connections == 1


async def test_a_replacement_that_is_closed_as_well_is_the_end_of_it() -> None:
    async def talk(connection: Connection) -> None:
        await connection.request()
        if connection.number == 0:
            await connection.send(http_answer())
            await connection.request()

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        with pytest.raises(TransportError, match="Server disconnected"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert server.connections == 2


async def test_the_replacement_does_not_restart_the_timeout() -> None:
    async def talk(connection: Connection) -> None:
        await connection.request()
        if connection.number == 0:
            await connection.send(http_answer())
            await connection.request()
            left.set()
            return
        replaced.set()
        await hang(connection)

    left, replaced = asyncio.Event(), asyncio.Event()
    async with RawServer(talk) as server, client(server.url, request_timeout=SOON) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        async with asyncio.timeout(GENEROUS):
            with pytest.raises(TransportError, match=r"no complete answer within 0.15s"):
                await plane.report_metrics("node-1", EXAMPLE)
        assert left.is_set()
        assert replaced.is_set()


async def test_a_registration_is_never_sent_twice() -> None:
    registrations = 0

    async def talk(connection: Connection) -> None:
        nonlocal registrations
        while True:
            if b"/v1/register" in await connection.request():
                registrations += 1
                return
            await connection.send(http_answer())

    async with RawServer(talk) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        with pytest.raises(TransportError):
            await plane.register("boot", "pk", "host", {})
        assert registrations == 1


# No answer


async def test_a_refused_connection_is_a_transport_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: no other program gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with client(url) as plane:
            with pytest.raises(TransportError, match=f"^POST {url}: Connection refused$") as caught:
                await plane.report_metrics("node-1", EXAMPLE)
    assert not caught.value.was_connected
    assert caught.value.__cause__ is not None
    assert plane.reconnect_count() == 0


async def test_a_name_that_no_host_can_have_is_a_transport_error() -> None:
    for name in ("a..b", "x" * 300):
        async with client(f"http://{name}") as plane:
            with pytest.raises(TransportError):
                await plane.report_metrics("node-1", EXAMPLE)


async def read_and_hang(connection: Connection) -> None:
    await connection.request()
    await hang(connection)


async def half_a_head(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-")
    await hang(connection)


async def half_a_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await hang(connection)


async def one_byte_at_a_time(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        await connection.send(b".")
        await asyncio.sleep(0.01)


async def continue_for_ever(connection: Connection) -> None:
    await connection.request()
    while True:
        await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "talk", [hang, read_and_hang, half_a_head, half_a_body, one_byte_at_a_time, continue_for_ever]
)
async def test_no_complete_answer_within_the_timeout_is_a_transport_error(
    talk: Callable[[object], Awaitable[None]],
) -> None:
    async with RawServer(talk) as server, client(server.url, request_timeout=SOON) as plane:
        async with asyncio.timeout(GENEROUS):
            with pytest.raises(TransportError, match=r"no complete answer within 0.15s"):
                await plane.report_metrics("node-1", EXAMPLE)
            with pytest.raises(TransportError, match=r"no complete answer within 0.15s"):
                await plane.fetch_secret("node-1", "key")


async def test_a_connection_that_is_never_made_is_cut_by_its_own_timeout() -> None:
    async with RawServer(hang) as server:
        url = server.url.replace("http:", "https:")  # TCP connects, the handshake never ends
        async with client(url, connect_timeout=SOON) as plane, asyncio.timeout(GENEROUS):
            with pytest.raises(TransportError, match=r"no connection within 0.15s"):
                await plane.report_metrics("node-1", EXAMPLE)


def sends(data: bytes, *, then_reset: bool = False) -> Callable[[Connection], Awaitable[None]]:
    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        if then_reset:
            connection.reset()

    return talk


TRUNCATED = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", TRUNCATED)
async def test_a_truncated_answer_is_no_answer(name: str, *, reset: bool) -> None:
    talk = sends(TRUNCATED[name], then_reset=reset)
    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(TransportError):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_an_answer_cut_at_any_byte_is_no_acknowledgement() -> None:
    whole = http_answer(body=b'{"ok":1}')
    cut = 0

    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(whole[:cut])

    async with RawServer(talk) as server:
        for cut in range(len(whole)):  # noqa: B007  # talk reads it
            async with client(server.url) as plane:
                with pytest.raises(TransportError):
                    await plane.report_metrics("node-1", EXAMPLE)


@pytest.mark.parametrize("taken", [0, 1, 100, 300, 1000, 10_000])
async def test_a_request_cut_at_any_byte_is_a_transport_error(taken: int) -> None:
    async def talk(connection: Connection) -> None:
        await connection.reader.readexactly(taken)
        connection.reset()

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(TransportError):
            await plane.report_metrics("node-1", latency_batch(5000))
        assert server.connections == 1


GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "terminal escapes": b"\x1b[31mHTTP/1.1 200\r\n\r\n",
    "an unknown version": b"HTTP/9.9 200 OK\r\n\r\n",
    "a short status": b"HTTP/1.1 99 X\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: zz\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "both lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a header of 1 MB": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_no_answer_and_its_error_is_one_line_without_secrets(name: str) -> None:
    async with (
        RawServer(sends(GARBAGE[name])) as server,
        client(server.url + "/secret-path") as plane,
    ):
        with pytest.raises(TransportError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
        url = server.url
    text = str(caught.value)
    assert text.startswith(f"POST {url}: ")
    assert text.isprintable()
    assert len(text) < 400
    assert "secret-path" not in text
    assert TOKEN not in repr(caught.value) + repr(caught.value.__cause__)


async def test_an_unsolicited_upgrade_is_no_acknowledgement() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    async with RawServer(sends(answer)) as server, client(server.url) as plane:
        with pytest.raises(APIError, match="HTTP 101"):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_interim_answers_are_skipped() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + http_answer()
    async with RawServer(sends(answer)) as server, client(server.url) as plane:
        await plane.report_metrics("node-1", EXAMPLE)


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_end_is_read_to_a_cap(status: int) -> None:
    sent = 0

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        from aiohttp import web  # noqa: PLC0415  # the name is for typing above

        response = web.StreamResponse(status=status)
        await response.prepare(request)
        block = b"x" * 65_536
        while sent < 10 * 2**20:
            await response.write(block)
            sent += len(block)
        return response

    async with ScriptedServer(flood, Reply()) as server, client(server.url) as plane:
        if status == 200:
            await plane.report_metrics("node-1", EXAMPLE)
        else:
            with pytest.raises(APIError, match=r"HTTP 500: x{299}…$"):
                await plane.report_metrics("node-1", EXAMPLE)
        await plane.report_metrics("node-1", EXAMPLE)
        assert plane.reconnect_count() == 1
    assert sent < 10 * 2**20


async def test_an_answer_before_the_body_was_read_is_received() -> None:
    async def talk(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(http_answer("413 Payload Too Large", b"at most 1 MB"))

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(APIError, match="HTTP 413: at most 1 MB"):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_the_transport_alone_is_a_context_manager_that_takes_any_status() -> None:
    async with (
        ScriptedServer(Reply(418, b"teapot", {"X-Kind": "stout"})) as server,
        HTTPTransport(
            user_agent="test", trust=Trust(), connect_timeout=LATE, request_timeout=LATE
        ) as transport,
    ):
        answer = await transport.request("PUT", server.url + "/pot", headers={}, cap=3)
        assert transport.connections == 1
    assert (answer.status, answer.headers["X-Kind"]) == (418, "stout")
    assert (answer.body, answer.cut) == (b"tea", True)
    with pytest.raises(RuntimeError, match="closed"):
        await transport.request("PUT", server.url, headers={}, cap=3)
