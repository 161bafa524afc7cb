"""Answers whose head is long, or of many fields."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import Config, ControlPlane, Receipt, TransportError
from support.points import EXAMPLE
from support.servers import Connection, RawServer

if TYPE_CHECKING:
    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

RECEIPT = b'{"accepted":1,"duplicate":false}'
LENGTH = b"Content-Length: %d\r\n" % len(RECEIPT)
OK = b"HTTP/1.1 200 OK\r\n"


def client(url: str) -> ControlPlane:
    return ControlPlane(Config(url, request_timeout=timedelta(seconds=10)))


def answering(*pieces: bytes) -> RawServer:
    async def talk(connection: Connection) -> None:
        while True:
            await connection.request()
            for piece in pieces:
                await connection.send(piece)
                await asyncio.sleep(0)

    return RawServer(talk)


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Security-Policy: " + b"a" * 9_000 + b"\r\n",
        b"X: " + b"a" * 65_000 + b"\r\n",
        b"a" * 60_000 + b": x\r\n",
        b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"v" * 50) for n in range(700)),
        b"".join(b"x%d:\r\n" % n for n in range(7_000)),
        b"Date: x\r\n" * 3 + b"Server: \xff\xfe\r\n",
    ],
    ids=["one long", "longest", "long name", "hundreds", "thousands", "repeated and no text"],
)
async def test_the_receipt_below_many_long_fields_is_read(fields: bytes) -> None:
    head = OK + fields + LENGTH + b"\r\n"
    async with answering(head, RECEIPT) as server, client(server.url) as plane:
        for _ in range(2):
            assert await plane.report_metrics("n", EXAMPLE) == Receipt(accepted=1)
        assert server.connections == 1


@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"], ids=["", "interim"]
)
@pytest.mark.parametrize(
    "field", [b"X: %s\r\n" % (b"a" * 1000), b"x:\r\n" * 200, b"a" * 1000], ids=repr
)
async def test_a_head_that_never_ends_is_cut_at_its_bound(before: bytes, field: bytes) -> None:
    sent = 0

    async def talk(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(before + OK)
        while True:
            await connection.send(field)
            sent += len(field)

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(TransportError, match="the head of the answer is too long"):
            await plane.report_metrics("n", EXAMPLE)
    assert sent < 16 * 2**20  # what the two sockets hold


@pytest.mark.parametrize(
    "answer",
    [OK, OK + b"X: y\r\n", OK + LENGTH, b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n" + OK],
)
async def test_an_answer_that_is_cut_within_its_head_is_none(answer: bytes) -> None:
    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer)

    async with RawServer(talk) as server, client(server.url) as plane:
        with pytest.raises(TransportError):
            await plane.report_metrics("n", EXAMPLE)


async def test_garbage_without_a_status_is_no_answer() -> None:
    for garbage in (b"\0" * 100_000, b"220 mail.example ESMTP\r\n", b"HTTP/1.1 2000 x\r\n\r\n"):
        async with answering(garbage) as server, client(server.url) as plane:
            with pytest.raises(TransportError):
                await plane.report_metrics("n", EXAMPLE)


async def test_interim_answers_are_passed_over_byte_by_byte() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    answer = interim + OK + LENGTH + b"\r\n" + RECEIPT
    for pieces in ([answer], [answer[n : n + 1] for n in range(len(answer))]):
        async with answering(*pieces) as server, client(server.url) as plane:
            assert await plane.report_metrics("n", EXAMPLE) == Receipt(accepted=1)


async def test_a_server_that_closes_each_connection_of_tls_is_answered_by(
    authority: Authority,
) -> None:
    async def talk(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK + LENGTH + b"Connection: close\r\n\r\n" + RECEIPT)

    async with RawServer(talk, tls=authority.server()) as server, client(server.url) as plane:
        for _ in range(3):
            assert await plane.report_metrics("n", EXAMPLE) == Receipt(accepted=1)
