"""Requests through an HTTP proxy."""

from __future__ import annotations

import gzip
import traceback
from base64 import b64encode
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd import api
from plexd.api import Config, ControlPlane, TLSError, TransportError, parse_proxy
from support.connect_proxy import ConnectProxy
from support.points import EXAMPLE, latency_batch
from support.servers import Connection, RawServer, ScriptedServer

if TYPE_CHECKING:
    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

CREDENTIALS = "us er:pass-canary:é"
ENCODED = b64encode(CREDENTIALS.encode()).decode()
WRITTEN = "us%20er:pass-canary:%C3%A9"


def client(url: str, proxy: str, ca_file: object = "") -> ControlPlane:
    config = Config(
        url,
        auth_token="token-canary",
        ca_file=str(ca_file),
        request_timeout=timedelta(seconds=10),
        proxy=proxy,
    )
    return ControlPlane(config)


def with_credentials(url: str) -> str:
    return url.replace("http://", f"http://{WRITTEN}@")


async def test_https_goes_through_a_tunnel_that_shows_the_proxy_nothing(
    authority: Authority,
) -> None:
    async with (
        ScriptedServer(tls=authority.server()) as server,
        ConnectProxy() as proxy,
        client(server.url, proxy.url, authority.ca_file) as plane,
    ):
        for _ in range(3):
            await plane.report_metrics("node-1", EXAMPLE)
        assert plane.reconnect_count() == 0
        assert len(server.requests) == 3
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n")
    assert "canary" not in head


async def test_http_is_asked_for_by_the_whole_url() -> None:
    async with (
        ScriptedServer() as server,
        ConnectProxy() as proxy,
        client(server.url, proxy.url) as plane,
    ):
        await plane.report_metrics("node-1", EXAMPLE)
        (request,) = server.requests
    assert request.headers["Authorization"] == "Bearer token-canary"
    assert proxy.heads[0].startswith(f"POST {server.url}/v1/nodes/node-1/metrics HTTP/1.1\r\n")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_proxy_gets_its_password_and_the_server_does_not(
    authority: Authority, *, tls: bool
) -> None:
    async with (
        ScriptedServer(tls=authority.server() if tls else None) as server,
        ConnectProxy(CREDENTIALS) as proxy,
        client(server.url, with_credentials(proxy.url), authority.ca_file) as plane,
    ):
        await plane.report_metrics("node-1", EXAMPLE)
        assert len(server.requests) == 1
        if tls:
            assert "Proxy-Authorization" not in server.requests[0].headers


async def test_what_a_proxy_refuses_is_said_with_its_name_and_without_its_password(
    authority: Authority,
) -> None:
    wrong = "http://someone:wrong-canary@"
    async with ScriptedServer(tls=authority.server()) as server, ConnectProxy("a:b") as proxy:
        url = proxy.url.replace("http://", wrong)
        async with client(server.url, url, authority.ca_file) as plane:
            with pytest.raises(TransportError) as caught:
                await plane.report_metrics("node-1", EXAMPLE)
        expected = f"the proxy {proxy.url}: Proxy Authentication Required (HTTP 407)"
        assert caught.value.reason == expected
        assert not caught.value.was_connected
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        assert server.requests == []
    async with (
        ConnectProxy(refusal="502 Bad Gateway") as proxy,
        client("https://plane.example", proxy.url, authority.ca_file) as plane,
    ):
        with pytest.raises(TransportError, match=r"Bad Gateway \(HTTP 502\)"):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_a_password_that_is_missing_without_a_tunnel_is_the_proxys_word() -> None:
    async with ConnectProxy("a:b") as proxy, client("http://plane.example", proxy.url) as plane:
        with pytest.raises(TransportError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
        expected = f"the proxy {proxy.url}: Proxy Authentication Required (HTTP 407)"
        assert str(caught.value) == expected
    assert not caught.value.was_connected


async def test_a_proxy_that_is_not_there_is_named(authority: Authority) -> None:
    async with ConnectProxy() as proxy:
        gone = proxy.url
    url = gone.replace("http://", "http://a:pass-canary@")
    async with client("https://plane.example", url, authority.ca_file) as plane:
        with pytest.raises(TransportError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
    assert str(caught.value) == (
        f"POST https://plane.example: the proxy {gone}: Connection refused"
    )
    chain = (caught.value, caught.value.__cause__)
    assert "canary" not in str([repr(error) for error in chain])


@pytest.mark.slow
async def test_a_proxy_that_never_answers_is_left_after_the_timeout_and_named() -> None:
    async def hang(connection: Connection) -> None:
        await connection.reader.read()

    async with RawServer(hang) as proxy:
        soon = timedelta(milliseconds=500)  # long enough to connect on a busy machine
        config = Config("https://plane.example", connect_timeout=soon, proxy=proxy.url)
        async with ControlPlane(config) as plane:
            for _ in range(2):
                with pytest.raises(
                    TransportError, match=r"the proxy .*: no connection within 0.5s"
                ):
                    await plane.report_metrics("node-1", EXAMPLE)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"\0\0\0", b"HTTP/1.1 101 x\r\n\r\n"])
async def test_a_proxy_that_answers_garbage_is_a_transport_error(answer: bytes) -> None:
    async def talk(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(answer)

    async with RawServer(talk) as proxy, client("https://plane.example", proxy.url) as plane:
        for _ in range(2):
            with pytest.raises(TransportError):
                await plane.report_metrics("node-1", EXAMPLE)


async def test_a_large_report_passes_a_tunnel(authority: Authority) -> None:
    batch = latency_batch(50_000)
    async with (
        ScriptedServer(tls=authority.server()) as server,
        ConnectProxy() as proxy,
        client(server.url, proxy.url, authority.ca_file) as plane,
    ):
        await plane.report_metrics("node-1", batch)
        (request,) = server.requests
    assert len(api.decode_batch(gzip.decompress(request.body))) == 50_000


async def test_the_certificate_is_still_the_servers(authority: Authority) -> None:
    async with (
        ScriptedServer(tls=authority.wrong_name()) as server,
        ConnectProxy() as proxy,
        client(server.url, proxy.url, authority.ca_file) as plane,
    ):
        with pytest.raises(TLSError, match=r"certificate is not valid for '127.0.0.1'"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert len(proxy.heads) == 1  # and nothing goes round the proxy


def test_a_proxy_is_parsed_from_its_url() -> None:
    assert parse_proxy("") is None
    for text in ("http://p.example:3128", "http://p.example:3128/", "http://[::1]:3128"):
        proxy = parse_proxy(text)
        assert proxy is not None
        assert proxy.url == text.rstrip("/")
        assert proxy.headers() == {}
    proxy = parse_proxy(f"http://{WRITTEN}@p.example")
    assert proxy is not None
    assert proxy.url == "http://p.example"
    assert proxy.headers() == {"Proxy-Authorization": f"Basic {ENCODED}"}
    assert ENCODED not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "p.example:3128", "https://u:canary@p.example", "socks5://u:canary@p", "http://", "http://:1",
        "http://u:canary@", "http://u:canary@p:0", "http://u:canary@p:99999", "http://u:canary@p:x",
        "http://u:canary@p/path", "http://u:canary@p?q", "http://u:canary@p#f",
        "http://u:ca nary@p", "http://u:canaryé@p", "http://[::1", "http:\\\\p", "x" * 100_000,
    ],
)  # fmt: skip
def test_what_names_no_proxy_is_refused_unseen(text: str) -> None:
    with pytest.raises(ValueError, match="http") as caught:
        parse_proxy(text)
    assert "canary" not in str(caught.value)
    assert len(str(caught.value)) < 100


def test_a_proxys_password_does_not_show_in_the_configuration() -> None:
    assert "canary" not in repr(Config("https://x", proxy="http://u:canary@p"))
    assert "http://p:3128" in repr(Config("https://x", proxy="http://p:3128"))
