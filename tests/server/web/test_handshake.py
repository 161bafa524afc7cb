"""TLS over shared buffers: what is sent arrives, and who is silent is cut off in time."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from faults.handshakes import KINDS
from plexd_server.web.listeners import Address, bind
from plexd_server.web.server import serving
from plexd_server.web.unread import UnreadAnswers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.tls import Authority

BODY = bytes(range(256)) * 16 * 1024
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SHORT = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a GET with much, and a POST with the number of bytes that came."""
    size = 0
    while scope["method"] == "POST" and (message := await receive())["body"]:
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = BODY if scope["method"] == "GET" else str(size).encode()
    if scope["path"] == "/short":
        body = body[:100_000]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@asynccontextmanager
async def secure(authority: Authority, **options: Any) -> AsyncIterator[tuple[str, int]]:
    listening = bind(Address("127.0.0.1", 0))
    bounded: Any = UnreadAnswers(app)
    async with (
        asyncio.timeout(30),
        serving(bounded, [listening], grace_seconds=0.2, tls=authority.server(), **options),
    ):
        yield listening.getsockname()


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


async def test_large_answers_arrive_whole_at_slow_readers_side_by_side(
    authority: Authority,
) -> None:
    async def read(address: tuple[str, int]) -> bytes:
        reader, writer = await asyncio.open_connection(
            *address, ssl=trusting(authority), limit=4096
        )
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        body = bytearray()
        while piece := await reader.read(60_000):
            body += piece
            await asyncio.sleep(0)
        writer.close()
        return bytes(body)

    async with secure(authority) as address:
        bodies = await asyncio.gather(*(read(address) for _ in range(8)))

    assert all(body == BODY for body in bodies)


async def test_large_bodies_arrive_whole_side_by_side(authority: Authority) -> None:
    async def write(address: tuple[str, int], size: int) -> bytes:
        reader, writer = await asyncio.open_connection(*address, ssl=trusting(authority))
        writer.write(SHORT % size + bytes(size))
        answer = await reader.read()
        writer.close()
        return answer.rpartition(b"\r\n\r\n")[2]

    sizes = [1, 16_384, 16_385, 65_536, 1_000_003, 3_000_000]
    async with secure(authority) as address:
        answers = await asyncio.gather(*(write(address, size) for size in sizes))

    assert answers == [str(size).encode() for size in sizes]


@pytest.mark.slow
async def test_an_answer_that_the_kernel_has_arrives_whole_however_late_it_is_read(
    authority: Authority,
) -> None:
    asked = b"GET /short HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with secure(authority) as address:
        plain = socket.create_connection(address)
        with trusting(authority).wrap_socket(
            plain, server_hostname="127.0.0.1", do_handshake_on_connect=False
        ) as client:
            await asyncio.to_thread(client.do_handshake)
            client.sendall(asked)
            await asyncio.sleep(3)  # longer than the server waits for a goodbye
            answer = await asyncio.to_thread(read_to_end, client)

    assert answer.endswith(BODY[:100_000])


def read_to_end(client: ssl.SSLSocket) -> bytes:
    found = b""
    while piece := client.recv(65_536):
        found += piece
    return found


@pytest.mark.slow
async def test_a_client_that_says_nothing_after_its_handshake_is_cut_off(
    authority: Authority,
) -> None:
    async with secure(authority, head_seconds=0.1) as address:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection(*address)
        is_done = False
        while not is_done:
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                is_done = True
            writer.write(outgoing.read())
            if not is_done:
                incoming.write(await reader.read(65_536))
        began = time.monotonic()
        while await reader.read(65_536):  # it never answers the server's close_notify
            pass
        writer.close()

    assert time.monotonic() - began < 10  # asyncio alone gives it thirty more


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_handshake_that_stops_anywhere_is_cut_off_in_time(
    authority: Authority, kind: str
) -> None:
    async with secure(authority, head_seconds=0.2) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(KINDS[kind])
        with suppress(ConnectionError):
            await reader.read()
        writer.close()


async def test_a_client_hello_that_is_said_to_be_huge_is_refused_at_once(
    authority: Authority,
) -> None:
    async with secure(authority, head_seconds=25) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"\x16\x03\x01\x02\x00\x01\x02")
        writer.write(b"\x00\x00")
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
