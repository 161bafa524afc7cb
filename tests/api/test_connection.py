"""What a server may do to a connection: speak unasked, speak twice, never end."""

from __future__ import annotations

import asyncio
import errno
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import HTTPTransport, TransportError, Trust, transport
from plexd.api.connector import place_of
from support.servers import Connection, RawServer, ScriptedServer, http_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plexd.api.connection import Answer
    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

PATIENT = timedelta(seconds=10)
CANARY = "hunter2-canary"


def client(trust: Trust | None = None) -> HTTPTransport:
    return HTTPTransport(
        user_agent="test",
        trust=trust or Trust(),
        connect_timeout=PATIENT,
        request_timeout=PATIENT,
    )


async def ask(
    by: HTTPTransport, url: str, body: bytes = b"?", headers: Mapping[str, str] | None = None
) -> Answer:
    return await by.request("POST", url, headers=headers or {}, body=body, cap=1000)


def answering(*pieces: bytes) -> RawServer:
    async def talk(connection: Connection) -> None:
        await connection.request()
        for piece in pieces:
            await connection.send(piece)

    return RawServer(talk)


# Nothing is an answer to a request that was not sent yet


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next() -> None:
    unasked = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(http_answer(body=b"%d" % connection.number))
        if connection.number == 0:
            await asyncio.sleep(0)
            await connection.send(http_answer(body=b"unasked"))
            unasked.set()
            await connection.reader.read()

    async with RawServer(talk) as server, client() as plane:
        assert (await ask(plane, server.url)).body == b"0"
        await unasked.wait()
        assert (await ask(plane, server.url)).body == b"1"
        assert plane.connections == 2


@pytest.mark.parametrize(
    "behind", [http_answer(body=b"second"), b"HTTP/1.1 2", b"SSH-2.0\r\n", b"\0" * 100]
)
async def test_what_comes_right_behind_an_answer_is_neither_read_nor_kept(behind: bytes) -> None:
    async with answering(http_answer(body=b"first") + behind) as server, client() as plane:
        for _ in range(2):
            assert (await ask(plane, server.url)).body == b"first"
        assert plane.connections == 2


async def test_a_server_that_speaks_first_in_tls_is_a_transport_error(
    authority: Authority,
) -> None:
    async def talk(connection: Connection) -> None:
        await connection.send(b"220 mail.example ESMTP\r\n")
        await connection.reader.read()

    async with (
        RawServer(talk, tls=authority.server()) as server,
        client(Trust(str(authority.ca_file))) as plane,
    ):
        for _ in range(3):
            with pytest.raises(TransportError):
                await ask(plane, server.url)


async def test_a_connection_that_was_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedServer() as server, client() as plane:
        await ask(plane, server.url)
        monkeypatch.setattr(transport, "_KEEPALIVE_SECONDS", -1.0)
        await ask(plane, server.url)
        assert plane.connections == 2


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EPIPE])
async def test_a_kept_connection_that_breaks_with_the_network_is_replaced(number: int) -> None:
    asked_again = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(http_answer(body=b"%d" % connection.number))
        await connection.request()
        asked_again.set()
        await connection.reader.read()

    async with RawServer(talk) as server, client() as plane:
        await ask(plane, server.url)
        again = asyncio.create_task(ask(plane, server.url))
        await asked_again.wait()
        (kept,) = plane._open
        kept.connection_lost(OSError(number, "lost"))
        kept.transport.abort()
        assert (await again).body == b"1"


# How an answer ends


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
        b"HTTP/1.1 200\r\ncontent-length:3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: folded\r\n line\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
async def test_every_whole_answer_is_read(answer: bytes) -> None:
    for pieces in ([answer], [answer[n : n + 1] for n in range(len(answer))]):
        async with answering(*pieces) as server, client() as plane:
            assert (await ask(plane, server.url)).body == b"abc"


async def test_headers_have_one_spelling_and_trailers_are_left_out() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nretry-AFTER: 5\r\nRetry-After: 6\r\nTransfer-Encoding: chunked\r\n"
        b"\r\n0\r\nServer: x\r\n\r\n"
    )
    async with answering(answer) as server, client() as plane:
        headers = (await ask(plane, server.url)).headers
    assert headers == {"Retry-After": "5", "Transfer-Encoding": "chunked"}


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (CHUNKED + b"0\r\n", b"X: yyyyyyyy\r\n" * 99),
        (CHUNKED + b"0\r\nX: ", b"y" * 999),
        (CHUNKED + b"3;", b"x" * 999),
        (CHUNKED + b"3;", b"x=y;" * 99),
    ],
)
async def test_trailers_and_extensions_without_end_are_cut(begin: bytes, more: bytes) -> None:
    sent = 0

    async def talk(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(begin)
        while True:
            await connection.send(more)
            sent += len(more)

    async with RawServer(talk) as server, client() as plane:
        with pytest.raises(TransportError, match="the trailer of the answer is too long"):
            await ask(plane, server.url)
    assert sent < 16 * 2**20  # what the two sockets hold


# What is sent


async def test_a_large_request_arrives_whole_over_tls(authority: Authority) -> None:
    body = bytes(16 * 2**20)
    async with (
        ScriptedServer(tls=authority.server()) as server,
        client(Trust(str(authority.ca_file))) as plane,
    ):
        assert (await ask(plane, server.url, body)).status == 200
        assert server.requests[0].body == body


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\0b", "a\udc80b"])
async def test_a_header_that_would_be_two_is_refused_unseen(value: str) -> None:
    async with ScriptedServer() as server, client() as plane:
        with pytest.raises(TransportError, match="a header holds a line break") as caught:
            await ask(plane, server.url, headers={"X": value, "Authorization": CANARY})
        assert server.requests == []
    assert CANARY not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/a\udc80"])
async def test_a_path_that_would_end_the_line_is_refused(path: str) -> None:
    async with ScriptedServer() as server, client() as plane:
        with pytest.raises(TransportError):
            await ask(plane, server.url + path)
        assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x", "http://x:99999", "http://u:p@x"])
def test_a_place_is_that_of_an_http_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Port"):
        place_of(url)


# Several addresses, a closed client, a cancelled request


async def test_of_several_addresses_that_refuse_each_reason_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lookup(*_: object, **__: object) -> object:
        addresses = ("127.0.0.1", "127.0.0.2", "255.255.255.255")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # not listening: no other program gets the port
        port = taken.getsockname()[1]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        async with client() as plane:
            with pytest.raises(TransportError) as caught:
                await ask(plane, "http://plane.example")
    reasons = caught.value.reason.split(", ")
    assert reasons[0] == "Connection refused"
    assert len(reasons) == 2


async def test_closing_ends_requests_under_way() -> None:
    asked = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.request()
        asked.set()
        await connection.reader.read()

    async with RawServer(talk) as server:
        plane = client()
        under_way = [asyncio.create_task(ask(plane, server.url)) for _ in range(12)]
        await asked.wait()
        await plane.aclose()
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TransportError}


@pytest.mark.parametrize("tls", [False, True])
async def test_a_request_may_be_cancelled_at_any_moment(authority: Authority, *, tls: bool) -> None:
    async def talk(connection: Connection) -> None:
        while True:
            asked = await connection.request()
            await connection.send(http_answer(body=asked[-2:]))

    trust = Trust(str(authority.ca_file))
    async with (
        RawServer(talk, tls=authority.server() if tls else None) as server,
        client(trust) as plane,
    ):
        for turns in range(40):
            cancelled = asyncio.create_task(ask(plane, server.url, b"no"))
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            body = b"%02d" % turns
            assert (await ask(plane, server.url, body)).body == body


async def test_a_cancelled_request_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.request()
        asked.set()
        await connection.reader.read()
        gone.set()

    asked = asyncio.Event()
    async with RawServer(talk) as server, client() as plane:
        task = asyncio.create_task(ask(plane, server.url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
