"""The local endpoint: the specification's credential flow, its failure table, and its TLS rows."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

import plexd
from plexd import metrics
from plexd.api import (
    APIError,
    LocalEndpointConfig,
    SecretResponse,
    TLSError,
    TransportError,
)
from plexd.metrics import CredentialError, LocalReporter
from plexd.metrics.testing import ManualClock, ScriptedFetcher
from support.points import EXAMPLE, named
from support.servers import Connection, RawServer, Reply, ScriptedServer
from support.tls import refuse_handshake

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

NSK = b"0123456789abcdef0123456789abcdef"
KEY = "local-metrics-token"
TOKEN = "hunter2-canary"
NODE = "node-1"
LOGGER = logging.getLogger("test.local")
TTL = 300


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fetcher() -> ScriptedFetcher:
    return ScriptedFetcher(NSK, {KEY: TOKEN})


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(tls=authority.server()) as started:
        yield started


def local(
    url: str,
    fetcher: metrics.SecretFetcher,
    clock: ManualClock | None = None,
    *,
    skip_verify: bool = False,
    nsk: bytes = NSK,
    **more: Any,  # keywords of the reporter
) -> LocalReporter:
    config = LocalEndpointConfig(url, KEY, skip_verify)
    return LocalReporter(config, fetcher, nsk, NODE, LOGGER, clock=clock, **more)


@pytest.fixture
async def reporter(
    server: ScriptedServer, fetcher: ScriptedFetcher, clock: ManualClock
) -> AsyncIterator[LocalReporter]:
    async with local(server.url + "/ingest?site=1", fetcher, clock) as opened:
        yield opened


# What is sent


async def test_a_report_is_one_authorised_post_of_plain_json(
    server: ScriptedServer, reporter: LocalReporter
) -> None:
    await reporter.report_metrics(NODE, named(EXAMPLE, dropped=5))
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/ingest?site=1")
    assert request.body == EXAMPLE.to_json()
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["User-Agent"] == f"plexd/{plexd.__version__}"
    assert "Content-Encoding" not in request.headers


async def test_reports_share_one_connection(
    server: ScriptedServer, reporter: LocalReporter
) -> None:
    for _ in range(3):
        await reporter.report_metrics(NODE, EXAMPLE)
    assert len({request.client_port for request in server.requests}) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(
    server: ScriptedServer, reporter: LocalReporter, status: int
) -> None:
    server.script = [Reply(status)]
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 413, 429, 500, 503, 999])
async def test_any_other_status_is_an_error_with_the_code(
    server: ScriptedServer, reporter: LocalReporter, status: int
) -> None:
    server.script = [Reply(status, b"" if status == 304 else b"because")]
    with pytest.raises(APIError, match=f"HTTP {status}") as caught:
        await reporter.report_metrics(NODE, EXAMPLE)
    assert caught.value.status_code == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_token_goes_nowhere(
    authority: Authority, server: ScriptedServer, reporter: LocalReporter, status: int
) -> None:
    async with ScriptedServer(tls=authority.server()) as elsewhere, ScriptedServer() as plain:
        for target in (elsewhere.url, plain.url):
            server.script = [Reply(status, headers={"Location": target})]
            with pytest.raises(APIError, match=f"HTTP {status}"):
                await reporter.report_metrics(NODE, EXAMPLE)
        assert elsewhere.requests == plain.requests == []
    assert len(server.requests) == 2


# The credential flow


async def test_the_secret_is_fetched_by_node_and_key_before_the_first_report(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher
) -> None:
    assert fetcher.fetches == []
    await reporter.report_metrics("another-node-id", EXAMPLE)
    assert fetcher.fetches == [(NODE, KEY)]
    assert len(server.requests) == 1


async def test_a_token_is_used_for_five_minutes_and_then_fetched_again(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    await reporter.report_metrics(NODE, EXAMPLE)
    fetcher.secrets[KEY] = "second"
    await clock.advance(TTL - 0.001)
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 1
    await clock.advance(0.001)
    await reporter.report_metrics(NODE, EXAMPLE)
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 2
    assert [request.headers["Authorization"] for request in server.requests] == [
        f"Bearer {TOKEN}",
        f"Bearer {TOKEN}",
        "Bearer second",
        "Bearer second",
    ]


async def test_a_step_of_the_wall_clock_does_not_age_a_token(
    reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    await reporter.report_metrics(NODE, EXAMPLE)
    clock.step(timedelta(days=365))
    await reporter.report_metrics(NODE, EXAMPLE)
    clock.step(timedelta(days=-3650))
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 1


@pytest.mark.parametrize("expired", [False, True])
async def test_fifty_concurrent_reports_cause_one_fetch(
    server: ScriptedServer,
    reporter: LocalReporter,
    fetcher: ScriptedFetcher,
    clock: ManualClock,
    *,
    expired: bool,
) -> None:
    if expired:
        await reporter.report_metrics(NODE, EXAMPLE)
        await clock.advance(TTL)
        fetcher.fetches.clear()
        server.requests.clear()
    fetcher.gate.clear()
    reports = [asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE)) for _ in range(50)]
    await clock.advance(0)
    fetcher.gate.set()
    await asyncio.gather(*reports)
    assert len(fetcher.fetches) == 1
    assert len(server.requests) == 50


async def test_fifty_concurrent_reports_share_a_fetch_that_fails(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    fetcher.failures = [APIError(503, "down")]
    fetcher.gate.clear()
    reports = [asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE)) for _ in range(50)]
    await clock.advance(0)
    fetcher.gate.set()
    outcomes = await asyncio.gather(*reports, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {CredentialError}
    assert len(fetcher.fetches) == 1
    assert server.requests == []
    await reporter.report_metrics(NODE, EXAMPLE)


async def test_a_cancelled_fetch_leaves_the_fetching_to_the_next_in_line(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    fetcher.gate.clear()
    first, second = (asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE)) for _ in range(2))
    await clock.advance(0)
    first.cancel()
    await clock.advance(0)
    assert first.cancelled()
    fetcher.gate.set()
    await second
    assert len(fetcher.fetches) == 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_the_endpoint_refuses_is_fetched_again_for_the_next_report(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher, status: int
) -> None:
    server.script = [Reply(status), Reply()]
    with pytest.raises(APIError, match=f"HTTP {status}"):
        await reporter.report_metrics(NODE, EXAMPLE)
    fetcher.secrets[KEY] = "second"
    await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests[1].headers["Authorization"] == "Bearer second"
    assert len(fetcher.fetches) == 2


async def test_other_refusals_keep_the_token(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher
) -> None:
    server.script = [Reply(500), Reply()]
    with pytest.raises(APIError):
        await reporter.report_metrics(NODE, EXAMPLE)
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 1


# The credential flow's failures


class GarblingFetcher:
    """Returns the scripted envelope for any key."""

    def __init__(self, ciphertext: str, nonce: str) -> None:
        self.envelope = SecretResponse(KEY, ciphertext, nonce, 1)

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        assert (node_id, key) == (NODE, KEY)
        return self.envelope


FAILURES: dict[str, tuple[Callable[[], metrics.SecretFetcher], str]] = {
    "an answer that is no 2xx": (
        lambda: ScriptedFetcher(NSK, {KEY: TOKEN}, APIError(503, "down")),
        "api: HTTP 503: down",
    ),
    "no such secret": (lambda: ScriptedFetcher(NSK, {}), "api: HTTP 404: no secret"),
    "no answer": (
        lambda: ScriptedFetcher(NSK, {KEY: TOKEN}, TransportError("refused")),
        "refused",
    ),
    "an error without a word": (
        lambda: ScriptedFetcher(NSK, {KEY: TOKEN}, RuntimeError()),
        "RuntimeError",
    ),
    "another node's envelope": (
        lambda: ScriptedFetcher(b"x" * 32, {KEY: TOKEN}),
        "nodeapi: decryption failed",
    ),
    "an envelope of garbage": (
        lambda: GarblingFetcher("@@@", "AAAAAAAAAAAAAAAA"),
        "nodeapi: decryption failed",
    ),
    "an empty token": (lambda: ScriptedFetcher(NSK, {KEY: ""}), "the secret is empty"),
    "a token with a line end": (
        lambda: ScriptedFetcher(NSK, {KEY: TOKEN + "\r\nX-Injected: 1"}),
        "the secret is not a bearer token",
    ),
    "a token beyond ASCII": (
        lambda: ScriptedFetcher(NSK, {KEY: TOKEN + "é"}),
        "the secret is not a bearer token",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_without_any_token_nothing_is_posted_and_the_error_says_why(
    server: ScriptedServer, clock: ManualClock, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, reason = FAILURES[name]
    async with local(server.url, make(), clock) as reporter:
        with pytest.raises(CredentialError) as caught:
            await reporter.report_metrics(NODE, EXAMPLE)
    assert str(caught.value).startswith(f"metrics: local: credential: {reason}")
    assert isinstance(caught.value.__cause__, Exception)
    assert server.requests == []
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("", "/"), ("/in gest", "/in%20gest"), ("/ü?q=ä#here", "/%C3%BC?q=%C3%A4"),
        ("/a%20b/(c);d?e=f&g=[h]", "/a%20b/(c);d?e=f&g=[h]"),
    ],
)  # fmt: skip
async def test_an_address_is_sent_in_the_form_that_a_request_needs(
    server: ScriptedServer, clock: ManualClock, given: str, sent: str
) -> None:
    async with local(server.url + given, ScriptedFetcher(NSK, {KEY: TOKEN}), clock) as reporter:
        await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests[0].target == sent


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_line_break_that_was_kept_with_a_secret_is_none_of_it(
    server: ScriptedServer, clock: ManualClock, end: str
) -> None:
    async with local(server.url, ScriptedFetcher(NSK, {KEY: TOKEN + end}), clock) as reporter:
        await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


class ChangingFetcher:
    """A good fetcher first, and then another one."""

    def __init__(self, then: metrics.SecretFetcher) -> None:
        self.current: metrics.SecretFetcher = ScriptedFetcher(NSK, {KEY: TOKEN})
        self.then = then

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        current, self.current = self.current, self.then
        return await current.fetch_secret(node_id, key)


@pytest.mark.parametrize("name", FAILURES)
async def test_with_an_old_token_the_report_goes_out_and_a_warning_says_why(
    server: ScriptedServer, clock: ManualClock, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, reason = FAILURES[name]
    async with local(server.url, ChangingFetcher(make()), clock) as reporter:
        await reporter.report_metrics(NODE, EXAMPLE)
        await clock.advance(TTL)
        await reporter.report_metrics(NODE, EXAMPLE)
    assert [r.headers["Authorization"] for r in server.requests] == [f"Bearer {TOKEN}"] * 2
    (record,) = [r for r in caplog.records if r.name == LOGGER.name]
    fields = vars(record)
    assert (record.levelname, record.getMessage()) == ("WARNING", "using cached credential")
    assert fields["component"] == "metrics"
    assert fields["error"].startswith(reason)
    assert TOKEN not in str(fields)


async def test_an_old_token_stays_in_use_with_a_warning_once_in_five_minutes(
    server: ScriptedServer,
    reporter: LocalReporter,
    fetcher: ScriptedFetcher,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await reporter.report_metrics(NODE, EXAMPLE)
    del fetcher.secrets[KEY]
    await clock.advance(TTL)
    for _ in range(12):
        await reporter.report_metrics(NODE, EXAMPLE)
        await clock.advance(50)
    assert len(server.requests) == 13
    assert len(fetcher.fetches) == 13
    warned = [r for r in caplog.records if r.getMessage() == "using cached credential"]
    assert len(warned) == 2
    assert vars(warned[1])["suppressed"] == 5
    fetcher.secrets[KEY] = "second"
    await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests[-1].headers["Authorization"] == "Bearer second"


async def test_a_refused_token_stays_in_use_while_no_other_can_be_fetched(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher
) -> None:
    server.script = [Reply(401), Reply()]
    with pytest.raises(APIError):
        await reporter.report_metrics(NODE, EXAMPLE)
    fetcher.failures = [TransportError("refused")]
    await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests[1].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.slow
async def test_fetches_that_keep_failing_are_bounded_however_many_reports_there_are(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    fetcher.failures = [APIError(503, "down")] * 1000
    for _ in range(600):  # a minute of a backlog that drains
        with pytest.raises(CredentialError, match="HTTP 503"):
            await reporter.report_metrics(NODE, EXAMPLE)
        await clock.advance(0.1)
    assert 10 < len(fetcher.fetches) <= 10 + 60 // 15
    fetcher.failures.clear()
    await clock.advance(15)
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(server.requests) == 1


async def test_a_token_refused_for_ever_is_fetched_at_the_same_bounded_rate(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher
) -> None:
    server.script = [Reply(401)]
    for _ in range(100):
        with pytest.raises(APIError, match="HTTP 401"):
            await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 10


async def test_a_late_refusal_of_the_old_token_does_not_expire_the_new_one(
    server: ScriptedServer, reporter: LocalReporter, fetcher: ScriptedFetcher
) -> None:
    gate = asyncio.Event()

    async def refuse_late(_: web.BaseRequest) -> web.StreamResponse:
        await gate.wait()
        return web.Response(status=401)

    server.script = [refuse_late, Reply(401), Reply()]
    late = asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE))
    await server.next_request()
    with pytest.raises(APIError):
        await reporter.report_metrics(NODE, EXAMPLE)
    fetcher.secrets[KEY] = "second"
    await reporter.report_metrics(NODE, EXAMPLE)
    gate.set()
    with pytest.raises(APIError):
        await late
    await reporter.report_metrics(NODE, EXAMPLE)
    assert len(fetcher.fetches) == 2
    assert server.requests[-1].headers["Authorization"] == "Bearer second"


async def test_a_fetch_that_never_ends_has_failed_after_a_minute(
    reporter: LocalReporter, fetcher: ScriptedFetcher, clock: ManualClock
) -> None:
    fetcher.gate.clear()
    report = asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE))
    await clock.advance(59)
    assert not report.done()
    await clock.advance(1)
    with pytest.raises(CredentialError, match="TimeoutError"):
        await report
    fetcher.gate.set()
    await reporter.report_metrics(NODE, EXAMPLE)


@pytest.mark.parametrize("nsk", [b"", b"short", NSK + b"x"])
async def test_a_key_of_the_wrong_length_is_a_credential_error(
    server: ScriptedServer, fetcher: ScriptedFetcher, nsk: bytes
) -> None:
    async with local(server.url, fetcher, nsk=nsk) as reporter:
        with pytest.raises(CredentialError, match="nodeapi: decryption failed"):
            await reporter.report_metrics(NODE, EXAMPLE)
    assert server.requests == []


# TLS

REFUSED: dict[str, tuple[Callable[[Authority, Path], ssl.SSLContext], str]] = {
    "expired": (lambda a, _: a.expired(), "certificate has expired"),
    "not yet valid": (lambda a, _: a.not_yet_valid(), "certificate is not yet valid"),
    "wrong name": (lambda a, _: a.wrong_name(), "certificate is not valid for '127.0.0.1'"),
    "self-signed": (lambda a, tmp: a.self_signed(tmp), "self-signed certificate"),
    "unknown authority": (
        lambda a, tmp: type(a).make(tmp).server(),
        "unable to get local issuer certificate",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_certificate_is_refused_and_gets_no_token(
    authority: Authority, fetcher: ScriptedFetcher, tmp_path: Path, name: str
) -> None:
    make, reason = REFUSED[name]
    async with (
        ScriptedServer(tls=make(authority, tmp_path)) as server,
        local(server.url, fetcher) as reporter,
    ):
        with pytest.raises(TLSError, match="certificate not accepted") as caught:
            await reporter.report_metrics(NODE, EXAMPLE)
        assert reason in str(caught.value)
        assert server.requests == []


async def test_authorities_of_the_system_that_were_renewed_are_used_without_a_restart(
    authority: Authority,
    fetcher: ScriptedFetcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = type(authority).make(tmp_path)
    old.become_the_systems(monkeypatch)
    async with (
        ScriptedServer(tls=authority.server()) as server,
        local(server.url, fetcher) as reporter,
    ):
        with pytest.raises(TLSError, match="certificate not accepted"):
            await reporter.report_metrics(NODE, EXAMPLE)
        old.ca_file.write_bytes(authority.ca_file.read_bytes())
        await reporter.report_metrics(NODE, EXAMPLE)
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", REFUSED)
async def test_with_verification_switched_off_any_certificate_does(
    authority: Authority, fetcher: ScriptedFetcher, tmp_path: Path, name: str
) -> None:
    make, _ = REFUSED[name]
    async with (
        ScriptedServer(tls=make(authority, tmp_path)) as server,
        local(server.url, fetcher, skip_verify=True) as reporter,
    ):
        await reporter.report_metrics(NODE, EXAMPLE)
        assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_switching_verification_off_for_one_reporter_leaves_others_strict(
    fetcher: ScriptedFetcher, tmp_path: Path, authority: Authority
) -> None:
    async with (
        ScriptedServer(tls=authority.self_signed(tmp_path)) as server,
        local(server.url, fetcher, skip_verify=True) as lax,
        local(server.url, fetcher) as strict,
    ):
        await lax.report_metrics(NODE, EXAMPLE)
        with pytest.raises(TLSError):
            await strict.report_metrics(NODE, EXAMPLE)
        assert len(server.requests) == 1


@pytest.mark.parametrize("skip_verify", [False, True])
async def test_tls_1_1_is_refused(
    authority: Authority, fetcher: ScriptedFetcher, *, skip_verify: bool
) -> None:
    async def talk(connection: Connection) -> None:
        await refuse_handshake(connection, authority.tls_1_1())

    async with RawServer(talk) as server:
        url = server.url.replace("http:", "https:")
        async with local(url, fetcher, skip_verify=skip_verify) as reporter:
            with pytest.raises(TLSError, match=r"TLS handshake failed: .*PROTOCOL"):
                await reporter.report_metrics(NODE, EXAMPLE)


async def test_an_endpoint_without_tls_gets_no_token(fetcher: ScriptedFetcher) -> None:
    async with ScriptedServer() as server:
        async with local(server.url.replace("http:", "https:"), fetcher) as reporter:
            with pytest.raises(TLSError, match="WRONG_VERSION_NUMBER"):
                await reporter.report_metrics(NODE, EXAMPLE)
        assert server.requests == []


# Time

SOON = timedelta(milliseconds=150)


async def hang(_: Connection) -> None:
    await asyncio.Event().wait()


async def hang_in_the_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await hang(connection)


async def trickle(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        await connection.send(b".")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("talk", [hang, hang_in_the_body, trickle])
async def test_an_endpoint_that_hangs_is_left_after_the_timeout(
    authority: Authority, fetcher: ScriptedFetcher, talk: Callable[[Connection], Awaitable[None]]
) -> None:
    async with (
        RawServer(talk, tls=authority.server()) as server,
        local(server.url, fetcher, timeout=SOON) as reporter,
        asyncio.timeout(5),
    ):
        with pytest.raises(TransportError, match=r"within 0.15s"):
            await reporter.report_metrics(NODE, EXAMPLE)


async def test_a_handshake_that_hangs_is_left_after_the_timeout(fetcher: ScriptedFetcher) -> None:
    async with RawServer(hang) as server:
        url = server.url.replace("http:", "https:")
        async with local(url, fetcher, timeout=SOON) as reporter, asyncio.timeout(5):
            with pytest.raises(TransportError, match=r"no (connection|complete answer) within"):
                await reporter.report_metrics(NODE, EXAMPLE)


@pytest.mark.parametrize("tls", [True, False])
async def test_the_default_timeout_is_ten_seconds_for_the_handshake_and_for_the_answer(
    authority: Authority, fetcher: ScriptedFetcher, monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    reached = asyncio.Event()

    async def never_answer(connection: Connection) -> None:
        if tls:
            await connection.request()
        reached.set()
        await hang(connection)

    loop = asyncio.get_running_loop()
    real, skipped = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + skipped)
    async with (
        RawServer(never_answer, tls=authority.server() if tls else None) as server,
        local(server.url.replace("http:", "https:"), fetcher) as reporter,
    ):
        report = asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE))
        await reached.wait()
        skipped = 5  # the rest may pass while the machine is busy
        for _ in range(10):
            await asyncio.sleep(0)
        assert not report.done()
        skipped = 10
        with pytest.raises(TransportError, match="within 10s"):
            await report


# The token stays where it belongs


async def test_no_failure_shows_the_token(
    authority: Authority,
    server: ScriptedServer,
    reporter: LocalReporter,
    fetcher: ScriptedFetcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [Reply(500, f"bad header: Bearer {TOKEN}".encode())]
    with pytest.raises(APIError, match=r"bad header: Bearer \[redacted\]") as refused:
        await reporter.report_metrics(NODE, EXAMPLE)

    async def garbage(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"garbage\r\n\r\n")

    async with (
        RawServer(garbage, tls=authority.server()) as raw,
        local(raw.url + "/ingest?key=canary", fetcher) as other,
    ):
        with pytest.raises(TransportError) as garbled:
            await other.report_metrics(NODE, EXAMPLE)
    for err in (refused.value, garbled.value):
        assert "canary" not in str(err) + repr(err) + repr(err.__cause__)
    for record in caplog.records:
        assert "canary" not in str(vars(record))


async def test_a_url_with_a_password_in_it_fails_without_showing_it(
    server: ScriptedServer, fetcher: ScriptedFetcher
) -> None:
    url = server.url.replace("https://", "https://user:canary@")
    async with local(url, fetcher) as reporter:
        with pytest.raises(TransportError) as caught:
            await reporter.report_metrics(NODE, EXAMPLE)
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__)


async def test_closing_is_idempotent_and_final(
    server: ScriptedServer, reporter: LocalReporter
) -> None:
    await reporter.report_metrics(NODE, EXAMPLE)
    await reporter.aclose()
    await reporter.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await reporter.report_metrics(NODE, EXAMPLE)
    assert len(server.requests) == 1


async def test_a_cancelled_report_leaves_the_reporter_usable(
    server: ScriptedServer, reporter: LocalReporter
) -> None:
    server.script = [asyncio.Event(), Reply()]
    report = asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE))
    await server.next_request()
    report.cancel()
    with pytest.raises(asyncio.CancelledError):
        await report
    await reporter.report_metrics(NODE, EXAMPLE)
