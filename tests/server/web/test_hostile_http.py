"""Confusing HTTP, byte by byte: at most one answer, and no hidden request is served."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from server.running import Client, connected, create_node, running
from server.web.test_hostile_bodies import Meter
from support.points import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from server.conftest import Shared

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
READ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
BODY = EXAMPLE.to_json()


def post(token: str, *fields: bytes, body: bytes) -> bytes:
    head = (
        "POST /v1/nodes/n1/metrics HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    )
    return head.encode() + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def chunk(size: bytes, data: bytes = b"[]", end: bytes = b"\r\n") -> bytes:
    return size + b"\r\n" + data + end + END


def talk(url: str, request: bytes, *, patience: float = 10.0) -> tuple[list[int], bytes]:
    """The statuses and all bytes of the answers until the connection ends."""
    heard = b""
    with connected(url) as connection:
        connection.settimeout(patience)
        # The server may close while we are still sending.
        with suppress(OSError):
            connection.sendall(request)
        with suppress(OSError):
            while piece := connection.recv(65_536):
                heard += piece
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", heard)], heard


REFUSED_REPORTS = {
    "length and chunks": ((b"Content-Length: 6", CHUNKED), END + b"G"),
    "chunks and length": ((CHUNKED, b"Content-Length: 4"), chunk(b"2")),
    "chunked twice": ((CHUNKED, CHUNKED), chunk(b"2")),
    "chunked, then another": ((CHUNKED + b", identity",), chunk(b"2")),
    "another, then chunked": ((b"Transfer-Encoding: gzip, chunked",), chunk(b"2")),
    "another, on a line of its own": ((CHUNKED, b"Transfer-Encoding: identity"), chunk(b"2")),
    "chunked, on a line of its own": ((b"Transfer-Encoding: gzip", CHUNKED), chunk(b"2")),
    "nearly chunked": ((b"Transfer-Encoding: xchunked",), chunk(b"2")),
    "chunked in quotes": ((b'Transfer-Encoding: "chunked"',), chunk(b"2")),
    "a space before the colon": ((b"Transfer-Encoding : chunked",), chunk(b"2")),
    "a tab that is none": ((b"Transfer-Encoding:\x0bchunked",), chunk(b"2")),
    "a folded line": ((b"Transfer-Encoding:\r\n chunked",), chunk(b"2")),
    "length with a sign": ((b"Content-Length: +2",), b"[]"),
    "negative length": ((b"Content-Length: -2",), b"[]"),
    "hexadecimal length": ((b"Content-Length: 0x2",), b"[]"),
    "two lengths in one": ((b"Content-Length: 2, 2",), b"[]"),
    "the same length twice": ((b"Content-Length: 2", b"Content-Length: 2"), b"[]"),
    "two lengths": ((b"Content-Length: 2", b"Content-Length: 3"), b"[]"),
    "length beyond counting": ((b"Content-Length: 1" + b"0" * 30,), b"[]"),
    "empty length": ((b"Content-Length: ",), b"[]"),
    "no length": ((), b"[]"),
    "length too short": ((b"Content-Length: 1",), b"[]"),
    "negative chunk": ((CHUNKED,), chunk(b"-2")),
    "chunk with a prefix": ((CHUNKED,), chunk(b"0x2")),
    "chunk without a size": ((CHUNKED,), chunk(b"")),
    "chunk beyond counting": ((CHUNKED,), chunk(b"F" * 17)),
    "chunk that wraps to two": ((CHUNKED,), chunk(b"10000000000000002")),
    "chunk longer than told": ((CHUNKED,), chunk(b"2", b"[]]")),
    "chunk shorter than told": ((CHUNKED,), chunk(b"3")),
    "chunk ended by any two bytes": ((CHUNKED,), chunk(b"2", end=b"xx")),
    "chunk ended by half an end": ((CHUNKED,), chunk(b"2", end=b"\n")),
    "space after a size": ((CHUNKED,), chunk(b"2 ")),
    "lines that end in LF": ((CHUNKED,), b"2\n[]\n0\n\n"),
    "a size that ends in CR": ((CHUNKED,), b"2\r[]\r\n" + END),
    "an extension with LF": ((CHUNKED,), b"2;a\n[]\r\n" + END),
    "an extension with NUL": ((CHUNKED,), chunk(b"2;\0")),
    "an extension of a megabyte": ((CHUNKED,), chunk(b"2;a=" + b"b" * 1_000_000)),
    "many fields after the body": ((CHUNKED,), b"2\r\n[]\r\n0\r\n" + b"X: y\r\n" * 100_000),
    "a long field after the body": ((CHUNKED,), b"2\r\n[]\r\n0\r\nX: " + b"y" * 600_000),
}


@pytest.mark.parametrize("name", REFUSED_REPORTS)
def test_a_report_of_ambiguous_length_is_400_and_ends_the_connection(
    shared: Shared, name: str
) -> None:
    fields, body = REFUSED_REPORTS[name]

    statuses, heard = talk(shared.server.url, post(shared.n1, *fields, body=body) + HIDDEN)

    # A sender that is cut off in the middle of too much may see a reset in place of the answer.
    assert statuses == [400] or (not statuses and len(body) > 500_000)
    assert b"hidden" not in heard


REFUSED_READS = {
    "lines that end in LF": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "lines that end in CR": b"GET /healthz HTTP/1.1\rHost: localhost\r\r",
    "NUL in a value": READ + b"X: a\0b\r\n\r\n",
    "CR in a value": READ + b"X: a\rb\r\n\r\n",
    "LF in a value": READ + b"X: a\nb: c\r\n\r\n",
    "space in a name": READ + b"X y: a\r\n\r\n",
    "no colon": READ + b"Xy\r\n\r\n",
    "no name": READ + b": a\r\n\r\n",
    "a folded line": READ + b"X: a\r\n b\r\n\r\n",
    "a space before the first name": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method in small letters": b"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no method": b"FOO /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in the path": b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no path": b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a head without end": READ + b"X: " + b"y" * 600_000,
    "fields without end": READ + b"X: y\r\n" * 100_000,
    "a path without end": b"GET /" + b"a" * 600_000,
    "empty lines without end": b"\r\n" * 300_000,
}


@pytest.mark.parametrize("name", REFUSED_READS)
def test_a_malformed_head_is_400_and_ends_the_connection(shared: Shared, name: str) -> None:
    request = REFUSED_READS[name]

    statuses, heard = talk(shared.server.url, request + HIDDEN)

    assert statuses == [400] or (not statuses and len(request) > 500_000)
    assert b"hidden" not in heard


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /login HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /login HTTP/1.1\r\nHost: localhost/x\r\n\r\n",
        b"GET /login HTTP/1.1\r\n\r\n",
    ],
    ids=["two hosts", "a host with a path", "no host"],
)
def test_an_ambiguous_host_is_421(shared: Shared, request_: bytes) -> None:
    last = READ + b"Connection: close\r\n\r\n"

    assert talk(shared.server.url, request_ + last)[0] == [421, 200]


async def test_a_report_in_chunks_of_one_byte_is_a_report(shared: Shared, n1: Client) -> None:
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in BODY) + END

    request = post(shared.n1, CHUNKED, b"Connection: close", body=chunks)
    statuses, heard = talk(shared.server.url, request)

    assert statuses == [200]
    assert b'{"accepted":3,"duplicate":false,' in heard
    assert (await n1.get("/healthz")).status == 200


JSON = b"Content-Type: application/json"
GZIP = b"Content-Encoding: gzip"


@pytest.mark.parametrize("path", ["/v1/nodes/n1/metrics", "/v1/register"])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Content-Type: ",),
        (b"Content-Type: application/json, text/plain",),
        (b"Content-Type: application/jsonx",),
        (b"Content-Type: application/json\xff",),
        (b"Content-Type: text/plain; application/json",),
        (JSON, b"Content-Type: text/plain"),
        (b"Content-Type: multipart/form-data; boundary=x",),
        (JSON, b"Content-Encoding: "),
        (JSON, b"Content-Encoding: GZIP, GZIP"),
        (JSON, GZIP, GZIP),
        (JSON, b"Content-Encoding: identity", GZIP),
        (JSON, b"Content-Encoding: x-gzip"),
        (JSON, b"Content-Encoding: \xff"),
    ],
)
def test_any_unsupported_form_is_415(shared: Shared, path: str, fields: tuple[bytes, ...]) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {shared.n1}\r\n"
    rest = b"".join(field + b"\r\n" for field in (*fields, b"Content-Length: 2"))

    statuses, _ = talk(shared.server.url, head.encode() + rest + b"Connection: close\r\n\r\n[]")

    assert statuses == [415]


def test_fields_after_the_body_change_nothing(shared: Shared) -> None:
    after = b"0\r\nContent-Encoding: gzip\r\nAuthorization: Bearer none\r\nPlexd-Batch: x\r\n\r\n"

    request = post(shared.n1, CHUNKED, b"Connection: close", body=b"2\r\n[]\r\n" + after)

    assert talk(shared.server.url, request)[0] == [200]


def test_a_body_where_none_is_expected_is_no_request(shared: Shared) -> None:
    inner = HIDDEN[:-2] + b"\r\n"
    request = READ + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
    last = b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    statuses, heard = talk(shared.server.url, request + last)

    assert statuses == [200, 404]
    assert b"hidden" not in heard


def test_an_upgrade_is_ignored_with_everything_after_it(shared: Shared) -> None:
    for protocol in (b"websocket", b"h2c"):
        request = READ + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        assert talk(shared.server.url, request + HIDDEN, patience=0.5)[0] == [200]


def test_pipelined_requests_are_answered_in_order(shared: Shared) -> None:
    paths = [b"/healthz", b"/none", b"/v1/nodes", b"/v1/openapi.json", b"/healthz"]
    requests = [b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths]
    requests[-1] = requests[-1][:-2] + b"Connection: close\r\n\r\n"

    assert talk(shared.server.url, b"".join(requests))[0] == [200, 404, 401, 200, 200]


@pytest.mark.slow
async def test_thousands_of_pipelined_requests_end_their_connection_and_cost_little(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    create_node(tmp_path / "d")
    with running(tmp_path / "d") as server:
        client, meter = Client(session, server.url), Meter(server.process.pid)
        talk(server.url, READ + b"Connection: close\r\n\r\n")
        meter.forget_peak()
        before = meter.kib("VmRSS")
        for _ in range(20):
            statuses, _ = talk(server.url, (READ + b"\r\n") * 20_000)
            assert set(statuses) <= {200, 400}
            assert len(statuses) < 1000
        assert meter.kib("VmHWM") - before < 16 * 1024
        assert (await client.get("/healthz")).status == 200
