"""HTTPS by certificate files, which may change while the server runs."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from plexd.api import Config, ControlPlane, MetricBatch, TLSError
from plexd.metrics.retry import Action, decide
from plexd.metrics.testing import ManualClock
from plexd_server.errors import StartError
from plexd_server.web.tls import Certificate, served_certificate
from server.running import command, create_node, running, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp


class Files:
    """A certificate and its key as files, issued again on request."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.chain = directory / "chain.pem"
        self.key = directory / "key.pem"
        self.certificate = Certificate(self.chain, self.key)
        self.issue("one.example")

    def issue(self, name: str) -> None:
        made = self.ca.issue_cert("127.0.0.1", name, key_type=trustme.KeyType.ECDSA)
        _replace(self.chain, b"".join(part.bytes() for part in made.cert_chain_pems))
        _replace(self.key, made.private_key_pem.bytes())

    def trusted(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shown_name(context: ssl.SSLContext, trusted: ssl.SSLContext) -> str:
    """The name in the certificate of a server with ``context``."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusted.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    peer: Any = client.getpeercert()
    return str(dict(peer["subjectAltName"])["DNS"])


async def test_a_changed_certificate_is_used_from_then_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock = ManualClock()
    async with served_certificate(files.certificate, clock, asyncio.Event()) as context:
        assert context is not None
        assert shown_name(context, files.trusted()) == "one.example"
        files.issue("two.example")
        async with asyncio.timeout(10):
            while not caplog.records:
                await clock.advance(5)

        assert shown_name(context, files.trusted()) == "two.example"
    assert [record.message for record in caplog.records] == ["certificate renewed"]


@pytest.mark.parametrize("spoil", ["chain", "key", "both"])
async def test_files_that_are_no_pair_are_logged_and_the_old_certificate_stays(
    files: Files, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    clock = ManualClock()
    other = trustme.CA().issue_cert("other.example")
    async with served_certificate(files.certificate, clock, asyncio.Event()) as context:
        assert context is not None
        await clock.advance(5)
        if spoil != "key":
            _replace(files.chain, other.cert_chain_pems[0].bytes())
        if spoil != "chain":
            _replace(files.key, b"no key")
        async with asyncio.timeout(10):
            while not caplog.records:
                await clock.advance(5)

        assert shown_name(context, files.trusted()) == "one.example"
    assert caplog.records[0].message == "certificate not taken"


@pytest.mark.parametrize("spare", [0, 1, 2])
async def test_a_certificate_that_comes_while_no_descriptor_is_left_is_used_once_there_are(
    files: Files, caplog: pytest.LogCaptureFixture, spare: int
) -> None:
    caplog.set_level("INFO")
    clock = ManualClock()
    async with served_certificate(files.certificate, clock, asyncio.Event()) as context:
        assert context is not None
        trusted = files.trusted()
        await clock.advance(5)
        files.issue("two.example")
        await asyncio.to_thread(str)  # the thread's start
        with descriptors_left(spare):
            async with asyncio.timeout(10):
                while not caplog.records:
                    await clock.advance(5)
            await clock.advance(5)
        assert shown_name(context, trusted) == "one.example"
        async with asyncio.timeout(10):
            while caplog.records[-1].message != "certificate renewed":
                await clock.advance(5)

        assert shown_name(context, trusted) == "two.example"
    assert [record.message for record in caplog.records] == [
        "certificate not taken",
        "certificate renewed",
    ]
    assert "Too many open files" in caplog.records[0].error  # type: ignore[attr-defined]  # set through extra


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open so many files more."""
    free = [os.dup(0) for _ in range(count + 1)]
    for each in free:
        os.close(each)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_key_that_everybody_can_read_is_refused_with_what_to_do(files: Files) -> None:
    files.key.chmod(0o644)

    with pytest.raises(StartError, match=f"run: chmod o= {files.key}"):
        files.certificate.context()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["chain", "key"])
def test_files_that_are_no_certificate_are_refused_at_the_start(
    files: Files, tmp_path: Path, which: str
) -> None:
    path = getattr(files, which)
    line = ["serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "d"]
    line += ["--tls-cert", files.chain, "--tls-key", files.key]
    for spoil in (lambda: path.write_text("garbage"), path.unlink):
        spoil()
        done = command(*line, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr


def test_a_certificate_without_its_key_is_wrong_usage(files: Files, tmp_path: Path) -> None:
    line = ["serve", "--data-dir", tmp_path / "d", "--tls-cert", files.chain]

    assert command(*line, check=False).returncode == 2


@pytest.mark.slow
async def test_a_running_server_loads_a_new_certificate_and_closes_no_connection(
    files: Files, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    options = ("--tls-cert", files.chain, "--tls-key", files.key)
    with running(tmp_path / "d", *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.login.startswith(f"{server.url}/login?token=")
        trusted = files.trusted()
        async with session.get(f"{server.url}/healthz", ssl=trusted) as first:
            assert first.status == 200
        answer = await session.get(server.login, ssl=trusted, allow_redirects=False)
        assert "secure" in answer.headers["Set-Cookie"].lower()
        files.issue("two.example")
        async with asyncio.timeout(20):
            while "certificate renewed" not in (tmp_path / "d.log").read_text():
                async with session.get(f"{server.url}/healthz", ssl=trusted) as again:
                    assert again.status == 200
                await asyncio.sleep(0.05)
        host, port = "127.0.0.1", int(server.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection(host, port, ssl=trusted)
        peer = writer.get_extra_info("ssl_object").getpeercert()
        assert ("DNS", "two.example") in peer["subjectAltName"]
        writer.close()


@pytest.mark.slow
async def test_an_agent_whose_url_lacks_the_s_loses_no_point(files: Files, tmp_path: Path) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with served(tmp_path / "d", certificate=files.certificate) as server:
        url = server.url.replace("https:", "http:")
        async with ControlPlane(Config(base_url=url, auth_token=token)) as plane:
            with pytest.raises(TLSError, match="has to begin with https://") as refused:
                await plane.report_metrics("n1", MetricBatch([]))

    assert decide(refused.value, 0).action is Action.HOLD


@pytest.mark.slow
def test_plain_http_beyond_loopback_logs_a_warning(tmp_path: Path) -> None:
    with running(tmp_path / "a", listen="0.0.0.0:0"), running(tmp_path / "b"):
        pass

    assert 'msg="plain HTTP beyond loopback"' in (tmp_path / "a.log").read_text()
    assert "plain HTTP" not in (tmp_path / "b.log").read_text()
