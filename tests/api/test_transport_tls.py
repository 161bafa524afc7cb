"""Which servers are trusted over TLS, and the reason when one is not."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import APIError, Config, ControlPlane, TLSError, TransportError
from support.points import EXAMPLE
from support.servers import Connection, RawServer, Reply, ScriptedServer
from support.tls import refuse_handshake

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")


def client(url: str, *, ca_file: object = "", skip_verify: bool = False) -> ControlPlane:
    return ControlPlane(
        Config(
            url,
            auth_token="hunter2-canary",
            ca_file=str(ca_file),
            tls_insecure_skip_verify=skip_verify,
            request_timeout=timedelta(seconds=10),
        )
    )


async def test_a_server_of_the_given_authority_is_trusted(authority: Authority) -> None:
    async with (
        ScriptedServer(tls=authority.server()) as server,
        client(server.url, ca_file=authority.ca_file) as plane,
    ):
        await plane.report_metrics("node-1", EXAMPLE)
        await plane.report_metrics("node-1", EXAMPLE)
        assert len({request.client_port for request in server.requests}) == 1


Contexts = dict[str, tuple["Callable[[Authority, Path], ssl.SSLContext]", str]]
REFUSED: Contexts = {
    "expired": (lambda a, _: a.expired(), "certificate has expired"),
    "not yet valid": (lambda a, _: a.not_yet_valid(), "certificate is not yet valid"),
    "wrong name": (lambda a, _: a.wrong_name(), "certificate is not valid for '127.0.0.1'"),
    "self-signed": (lambda a, tmp: a.self_signed(tmp), "self-signed certificate"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_certificate_is_refused_with_its_reason(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    make, reason = REFUSED[name]
    async with (
        ScriptedServer(tls=make(authority, tmp_path)) as server,
        client(server.url, ca_file=authority.ca_file) as plane,
    ):
        with pytest.raises(TLSError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
        assert str(caught.value).startswith(f"POST {server.url}: certificate not accepted: ")
        assert reason in str(caught.value)
        assert caught.value.__cause__ is not None
        assert server.requests == []


async def test_an_unknown_authority_is_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type(authority).make(tmp_path).become_the_systems(monkeypatch)
    async with ScriptedServer(tls=authority.server()) as server, client(server.url) as plane:
        with pytest.raises(TLSError, match="certificate not accepted: unable to get local issuer"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert server.requests == []


@pytest.mark.parametrize("name", REFUSED)
async def test_a_client_without_verification_accepts_any_certificate(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    make, _ = REFUSED[name]
    async with (
        ScriptedServer(tls=make(authority, tmp_path)) as server,
        client(server.url, skip_verify=True) as plane,
    ):
        await plane.report_metrics("node-1", EXAMPLE)


async def test_an_own_authority_replaces_those_of_the_system(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(authority).make(tmp_path)
    other.become_the_systems(monkeypatch)
    async with ScriptedServer(tls=other.server()) as server:
        async with client(server.url) as plane:
            await plane.report_metrics("node-1", EXAMPLE)
        async with client(server.url, ca_file=authority.ca_file) as plane:
            with pytest.raises(TLSError):
                await plane.report_metrics("node-1", EXAMPLE)


BROKEN_PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("content", ["", "garbage", BROKEN_PEM, None], ids=ascii)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_ca_file_that_cannot_be_used_is_a_tls_error_that_names_it(
    tmp_path: Path, content: str | None, scheme: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    async with client(f"{scheme}://127.0.0.1:9", ca_file=path) as plane:
        with pytest.raises(TLSError, match=f"^cannot use the CA file {path}: ") as caught:
            await plane.report_metrics("node-1", EXAMPLE)
    assert caught.value.__cause__ is not None


async def test_a_ca_file_that_is_no_file_or_no_path_is_a_tls_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # on which OpenSSL would wait for ever
    for path in (tmp_path, tmp_path / "pipe", "a\0b"):
        async with client("https://127.0.0.1:9", ca_file=path) as plane:
            with pytest.raises(TLSError, match="cannot use the CA file"):
                await plane.report_metrics("node-1", EXAMPLE)


async def test_a_ca_file_put_right_is_used_without_a_restart(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    async with (
        ScriptedServer(tls=authority.server()) as server,
        client(server.url, ca_file=path) as plane,
    ):
        with pytest.raises(TLSError):
            await plane.report_metrics("node-1", EXAMPLE)
        path.write_bytes(authority.ca_file.read_bytes())
        await plane.report_metrics("node-1", EXAMPLE)


@pytest.mark.parametrize("is_the_systems", [False, True])
async def test_renewed_authorities_are_taken_up_when_a_server_is_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_the_systems: bool
) -> None:
    first = type(authority).make(tmp_path)
    if is_the_systems:
        first.become_the_systems(monkeypatch)
    async with client("https://x", ca_file="") as plane:
        assert plane.reconnect_count() == 0
    ca_file = "" if is_the_systems else first.ca_file
    server = ScriptedServer(tls=first.server())
    async with server:
        plane = client(server.url, ca_file=ca_file)
        await plane.report_metrics("node-1", EXAMPLE)
    renewed = ScriptedServer(tls=authority.server())
    renewed._port = server.port
    async with plane, renewed:
        with pytest.raises(TLSError):
            await plane.report_metrics("node-1", EXAMPLE)
        with first.ca_file.open("ab") as bundle:
            bundle.write(authority.ca_file.read_bytes())
        await plane.report_metrics("node-1", EXAMPLE)
        assert len(renewed.requests) == 1


async def test_renewed_authorities_that_cannot_be_used_are_named_until_they_can(
    authority: Authority, tmp_path: Path
) -> None:
    bundle = type(authority).make(tmp_path).ca_file
    async with (
        ScriptedServer(tls=authority.server()) as server,
        client(server.url, ca_file=bundle) as plane,
    ):
        with pytest.raises(TLSError, match="unable to get local issuer"):
            await plane.report_metrics("node-1", EXAMPLE)
        bundle.write_text("half of a")
        for _ in range(2):
            with pytest.raises(TLSError, match="cannot use the CA file"):
                await plane.report_metrics("node-1", EXAMPLE)
        bundle.write_bytes(authority.ca_file.read_bytes())
        await plane.report_metrics("node-1", EXAMPLE)


async def test_a_server_refused_by_the_same_authorities_is_asked_once(
    authority: Authority, tmp_path: Path
) -> None:
    handshakes = 0

    async def talk(connection: Connection) -> None:
        nonlocal handshakes
        handshakes += 1
        await connection.reader.read()

    other = type(authority).make(tmp_path)
    async with (
        RawServer(talk, tls=authority.server()) as server,
        client(server.url, ca_file=other.ca_file) as plane,
    ):
        for _ in range(3):
            with pytest.raises(TLSError):
                await plane.report_metrics("node-1", EXAMPLE)
    assert handshakes <= 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_a_certificate_signed_over_sha_1_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    async with (
        ScriptedServer(tls=authority.sha_1(tmp_path)) as server,
        client(server.url, ca_file=authority.ca_file) as plane,
    ):
        with pytest.raises(TLSError, match=r"certificate not accepted: .*too weak"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert server.requests == []


@pytest.mark.parametrize("skip_verify", [False, True])
async def test_a_server_of_tls_1_1_is_refused(authority: Authority, *, skip_verify: bool) -> None:
    async def talk(connection: Connection) -> None:
        await refuse_handshake(connection, authority.tls_1_1())

    async with RawServer(talk) as server:
        url = server.url.replace("http:", "https:")
        async with client(url, ca_file=authority.ca_file, skip_verify=skip_verify) as plane:
            with pytest.raises(TLSError, match=r"TLS handshake failed: .*PROTOCOL"):
                await plane.report_metrics("node-1", EXAMPLE)


async def test_a_server_without_tls_is_a_tls_error() -> None:
    async with ScriptedServer() as server:
        url = server.url.replace("http:", "https:")
        async with client(url) as plane:
            with pytest.raises(TLSError, match="TLS handshake failed: WRONG_VERSION_NUMBER"):
                await plane.report_metrics("node-1", EXAMPLE)
        assert server.requests == []


async def greeting(connection: Connection) -> None:
    await connection.reader.read(1)
    await connection.send(b"220 mail.example ESMTP\r\n")


async def close(connection: Connection) -> None:
    await connection.reader.read(1)


async def reset(connection: Connection) -> None:
    await connection.reader.read(1)
    connection.reset()


@pytest.mark.parametrize("talk", [close, reset])
async def test_a_handshake_that_is_cut_is_a_transport_error_to_be_tried_again(
    talk: Callable[[Connection], asyncio.Future[None]],
) -> None:
    async with RawServer(talk) as server:
        url = server.url.replace("http:", "https:")
        async with client(url) as plane:
            with pytest.raises(TransportError, match="connection reset") as caught:
                await plane.report_metrics("node-1", EXAMPLE)
    assert not isinstance(caught.value, TLSError)


async def test_garbage_instead_of_a_handshake_is_a_tls_error() -> None:
    async with (
        RawServer(greeting) as server,
        client(server.url.replace("http:", "https:")) as plane,
    ):
        with pytest.raises(TLSError, match="TLS handshake failed"):
            await plane.report_metrics("node-1", EXAMPLE)


async def test_a_certificate_exchanged_under_the_client_costs_no_report(
    authority: Authority,
) -> None:
    context = authority.server()
    async with (
        ScriptedServer(tls=context) as server,
        client(server.url, ca_file=authority.ca_file) as plane,
    ):
        await plane.report_metrics("node-1", EXAMPLE)
        authority.ca.issue_cert("127.0.0.1").configure_cert(context)
        await plane.report_metrics("node-1", EXAMPLE)
        assert len(server.requests) == 2


async def test_a_certificate_exchanged_again_and_again_under_load_costs_no_report(
    authority: Authority,
) -> None:
    context = authority.server()
    async with (
        ScriptedServer(Reply(headers={"Connection": "close"}), tls=context) as server,
        client(server.url, ca_file=authority.ca_file) as plane,
    ):
        for _ in range(5):
            authority.ca.issue_cert("127.0.0.1").configure_cert(context)
            await asyncio.gather(*(plane.report_metrics("node-1", EXAMPLE) for _ in range(10)))
        assert len(server.requests) == 50
        assert plane.reconnect_count() == 49


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"Client sent an HTTP request to an HTTPS server.\n", TLSError),
        (b'{"type": "https://example.com/problems/bad-point", "detail": "no"}', APIError),
        (b" " * 1000 + b"http request to an https server", APIError),
    ],
)
async def test_only_a_server_that_asks_for_https_is_taken_for_one(
    body: bytes, error: type[Exception]
) -> None:
    async with ScriptedServer(Reply(status=400, body=body)) as server, client(server.url) as plane:
        with pytest.raises(error):
            await plane.report_metrics("node-1", EXAMPLE)
