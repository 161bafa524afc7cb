"""The client against a real server: what it sends, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import plexd
from plexd.api import (
    APIError,
    Config,
    ControlPlane,
    DecodeError,
    MetricBatch,
    Peer,
    Predecessor,
    Receipt,
    Registration,
    SecretResponse,
    TransportError,
)
from plexd.metrics.testing import ManualClock
from support.points import EPOCH, EXAMPLE, NOW, latency_batch, named
from support.servers import Connection, RawServer, Reply, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

TOKEN = "hunter2-canary"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as started:
        yield started


@pytest.fixture
async def plane(server: ScriptedServer) -> AsyncIterator[ControlPlane]:
    config = Config(server.url, auth_token=TOKEN, request_timeout=timedelta(seconds=10))
    async with ControlPlane(config, clock=ManualClock(NOW)) as opened:
        yield opened


def json_reply(document: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


# What is sent


async def test_a_report_is_one_authorised_gzipped_post(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    await plane.report_metrics("node-1", EXAMPLE)
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/nodes/node-1/metrics")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["User-Agent"] == f"plexd/{plexd.__version__}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(request.body) == EXAMPLE.to_json()


async def test_a_large_report_arrives_whole(server: ScriptedServer, plane: ControlPlane) -> None:
    batch = latency_batch(20_000)
    await plane.report_metrics("node-1", batch)
    body = server.requests[0].body
    assert gzip.decompress(body) == batch.to_json()
    assert len(body) < len(batch.to_json()) / 4


async def test_a_named_batch_carries_its_name_and_what_was_lost(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    await plane.report_metrics("node-1", named(EXAMPLE, 7))
    after = Predecessor("e" * 32, 40, 2)
    await plane.report_metrics("node-1", named(EXAMPLE, 10, dropped=12, after=after))
    first, second = (request.headers for request in server.requests)
    assert first["Plexd-Batch"] == f"{EPOCH};first=7;points=3"
    assert first["Plexd-Dropped"] == "0"
    assert "Plexd-After" not in first
    assert second["Plexd-Dropped"] == "12"
    assert second["Plexd-After"] == f"{'e' * 32}:40;skipped=2"


RECEIPTS = {
    b'{"accepted":3}': Receipt(3),
    b'{"accepted":2,"rejected":1,"reason":"ahead","newer":[1]}': Receipt(
        2, rejected=1, reason="ahead"
    ),
    b'{"accepted":0,"clash":true,"upto":9,"newest":"2026-02-12T10:30:00Z"}': Receipt(
        0, clash=True, upto=9, newest=NOW
    ),
    b"": None,
    b"OK": None,
    b"[]": None,
    b'{"accepted":"all"}': None,
    b'{"accepted":3' + b" " * 70_000 + b"}": None,
}


@pytest.mark.parametrize("body", RECEIPTS, ids=lambda body: body[:20].decode())
async def test_any_2xx_is_an_acknowledgement_and_a_receipt_if_it_is_one(
    server: ScriptedServer, plane: ControlPlane, body: bytes
) -> None:
    server.script = [Reply(200, body)]
    assert await plane.report_metrics("node-1", EXAMPLE) == RECEIPTS[body]


async def test_a_nameless_batch_carries_no_delivery_headers(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    await plane.report_metrics("node-1", EXAMPLE)
    await plane.report_metrics("node-1", MetricBatch(EXAMPLE, dropped=3))
    assert not [h for h in server.requests[0].headers if h.startswith("Plexd-")]
    assert "Plexd-Batch" not in server.requests[1].headers
    assert server.requests[1].headers["Plexd-Dropped"] == "3"


async def test_without_a_token_nothing_is_authorised(server: ScriptedServer) -> None:
    async with ControlPlane(Config(server.url)) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
    assert "Authorization" not in server.requests[0].headers


async def test_the_user_agent_names_the_version_it_is_given(server: ScriptedServer) -> None:
    async with ControlPlane(Config(server.url), version="9.8.7") as plane:
        await plane.report_metrics("node-1", EXAMPLE)
    assert server.requests[0].headers["User-Agent"] == "plexd/9.8.7"


async def test_a_token_survives_a_changed_copy_of_the_configuration(server: ScriptedServer) -> None:
    config = replace(Config("http://unused.example", auth_token=TOKEN), base_url=server.url)
    async with ControlPlane(config) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


ODD_IDS = {
    "a/b": "a%2Fb",
    "ü": "%C3%BC",
    "%2e": "%252e",
    "%2e%2e": "%252e%252e",
    "...": "...",
    "a b?c#d": "a%20b%3Fc%23d",
    "a\r\nX: y": "a%0D%0AX%3A%20y",
    "\0": "%00",
    "../../v1/register": "..%2F..%2Fv1%2Fregister",
    "😀": "%F0%9F%98%80",
    "a;b@c:d": "a%3Bb%40c%3Ad",
}


@pytest.mark.parametrize("node_id", ODD_IDS)
async def test_an_odd_node_id_is_one_segment_of_the_path(
    server: ScriptedServer, plane: ControlPlane, node_id: str
) -> None:
    server.script = [Reply(), json_reply({"peers": []}), Reply(500)]
    await plane.report_metrics(node_id, EXAMPLE)
    await plane.fetch_peers(node_id)
    with pytest.raises(APIError):
        await plane.fetch_secret(node_id, node_id)
    escaped = ODD_IDS[node_id]
    assert [request.target for request in server.requests] == [
        f"/v1/nodes/{escaped}/metrics",
        f"/v1/nodes/{escaped}/state",
        f"/v1/nodes/{escaped}/secrets/{escaped}",
    ]


@pytest.mark.parametrize("text", ["", ".", "..", "\ud800"], ids=ascii)
async def test_an_id_no_path_can_hold_is_refused_and_nothing_is_sent(
    server: ScriptedServer, plane: ControlPlane, text: str
) -> None:
    calls: list[Awaitable[object]] = [
        plane.report_metrics(text, EXAMPLE),
        plane.fetch_peers(text),
        plane.fetch_secret("node-1", text),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"cannot be part of a path|surrogates"):
            await call
    assert server.requests == []


@pytest.mark.parametrize("tail", ["", "/", "//", "/mesh", "/mesh/", "/a%20b/"])
async def test_the_base_url_may_have_a_path_and_end_in_slashes(
    server: ScriptedServer, tail: str
) -> None:
    async with ControlPlane(Config(server.url + tail)) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
    assert server.requests[0].target == tail.rstrip("/") + "/v1/nodes/node-1/metrics"


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "plane.example",
        "//plane.example",
        "ftp://plane.example",
        "file:///etc/passwd",
        "http://",
        "https:///path",
        "http://[::1",
        "http://plane.example:port",
        "http://plane.example:99999",
        "http://plane.example/a b",
        "http://plane.example/\r\nX: y",
        "http://pläne.example",
        "http://plane.example/?node=1",
        "http://plane.example/#top",
        "http://user:hunter2@plane.example",
    ],
)
def test_a_base_url_that_leads_nowhere_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must") as caught:
        ControlPlane(Config(base_url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", ["x y", "x\n", "\ttoken", "tökén", "x\0y", "x\x7f"], ids=ascii)
def test_a_token_no_header_can_carry_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ValueError, match="auth_token is not a bearer token") as caught:
        ControlPlane(Config("https://plane.example", auth_token=token))
    assert token not in str(caught.value)


async def test_nothing_comes_from_the_environment(
    server: ScriptedServer,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with ScriptedServer(Reply(599)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with ControlPlane(Config(server.url)) as plane:
            await plane.report_metrics("node-1", EXAMPLE)
        assert proxy.requests == []
    assert "Authorization" not in server.requests[0].headers


async def test_cookies_are_not_kept(server: ScriptedServer, plane: ControlPlane) -> None:
    server.script = [Reply(headers={"Set-Cookie": "session=1; Path=/"})]
    await plane.report_metrics("node-1", EXAMPLE)
    await plane.report_metrics("node-1", EXAMPLE)
    assert "Cookie" not in server.requests[1].headers


# What comes back


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
@pytest.mark.parametrize("body", [b"", b'{"duplicate":true}', b"<html>", b"\x1f\x8bbroken"])
async def test_any_2xx_is_an_acknowledgement(
    server: ScriptedServer, plane: ControlPlane, status: int, body: bytes
) -> None:
    server.script = [Reply(status, b"" if status == 204 else body)]
    await plane.report_metrics("node-1", EXAMPLE)


REFUSALS = [300, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 425, 429, 451]
REFUSALS += [500, 501, 502, 503, 504, 507, 599, 600, 999]


@pytest.mark.parametrize("status", REFUSALS)
async def test_any_other_status_is_an_api_error(
    server: ScriptedServer, plane: ControlPlane, status: int
) -> None:
    server.script = [Reply(status, b"" if status == 304 else b'{"detail": "because"}')]
    with pytest.raises(APIError) as caught:
        await plane.report_metrics("node-1", EXAMPLE)
    assert caught.value.status_code == status
    assert caught.value.retry_after is None
    reason = "redirects are not followed: correct the base URL" if status < 400 else "because"
    assert str(caught.value) == f"api: HTTP {status}: {reason}"
    assert len(server.requests) == 1


async def test_an_error_without_a_word_has_the_words_of_its_status(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [Reply(503)]
    with pytest.raises(APIError, match=r"^api: HTTP 503: Service Unavailable$"):
        await plane.report_metrics("node-1", EXAMPLE)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("0", timedelta()),
        ("Thu, 12 Feb 2026 10:32:00 GMT", timedelta(minutes=2)),
        ("Thu, 12 Feb 2026 10:00:00 GMT", timedelta()),
        ("-1", None),
        ("soon", None),
        ("Thu, 12 Feb 99999999999999999999 10:31:00 GMT", None),
    ],
)
async def test_the_wait_a_server_asks_for_comes_with_the_error(
    server: ScriptedServer, plane: ControlPlane, header: str, wait: timedelta | None
) -> None:
    server.script = [Reply(429, headers={"Retry-After": header})]
    with pytest.raises(APIError) as caught:
        await plane.report_metrics("node-1", EXAMPLE)
    assert caught.value.retry_after == wait


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_and_the_token_goes_nowhere(
    server: ScriptedServer, plane: ControlPlane, status: int
) -> None:
    async with ScriptedServer() as elsewhere:
        server.script = [Reply(status, headers={"Location": elsewhere.url + "/v1/take"})]
        calls: list[Awaitable[object]] = [
            plane.report_metrics("node-1", EXAMPLE),
            plane.fetch_secret("node-1", "key"),
            plane.fetch_peers("node-1"),
            plane.register("bootstrap", "pk", "host", {}),
        ]
        for call in calls:
            with pytest.raises(APIError, match=f"HTTP {status}: redirects are not followed"):
                await call
        assert elsewhere.requests == []
    assert len(server.requests) == 4


async def test_a_server_that_repeats_the_token_does_not_get_it_into_the_error(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [json_reply({"detail": f"no such token: {TOKEN}"}, 401)]
    with pytest.raises(APIError) as caught:
        await plane.report_metrics("node-1", EXAMPLE)
    assert TOKEN not in repr(caught.value)
    assert caught.value.message == "no such token: [redacted]"
    server.script = [json_reply({"detail": "used up: boot-canary"}, 403)]
    with pytest.raises(APIError) as caught:
        await plane.register("boot-canary", "pk", "host", {})
    assert caught.value.message == "used up: [redacted]"


async def test_no_call_logs_a_token(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [Reply(), Reply(500)]
    config = Config(server.url, auth_token=TOKEN)
    async with ControlPlane(config, logger=logging.getLogger("plexd.api")) as plane:
        await plane.report_metrics("node-1", EXAMPLE)
        with pytest.raises(APIError):
            await plane.register("boot-canary", "pk", "host", {})
    assert [r.message for r in caplog.records if r.name == "plexd.api"] == ["api answered"] * 2
    for record in caplog.records:
        assert "canary" not in str(vars(record))


# The other calls

SECRET = {"key": "local", "ciphertext": "YQ==", "nonce": "Yg==", "version": 3}


async def test_a_secret_is_fetched_by_name(server: ScriptedServer, plane: ControlPlane) -> None:
    server.script = [json_reply({**SECRET, "rotated_at": "2026-02-12T10:30:00Z"})]
    assert await plane.fetch_secret("node-1", "local") == SecretResponse("local", "YQ==", "Yg==", 3)
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/v1/nodes/node-1/secrets/local")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.body == b""


async def test_peers_are_those_of_the_nodes_state(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    peer = {"id": "p1", "public_key": "pk", "mesh_ip": "10.0.0.2", "endpoint": "unknown here"}
    server.script = [
        json_reply({"peers": [peer], "version": 9}),
        json_reply({"version": 9}),
        json_reply({"peers": None}),
    ]
    assert await plane.fetch_peers("node-1") == [Peer("p1", "pk", "10.0.0.2")]
    assert await plane.fetch_peers("node-1") == []
    assert await plane.fetch_peers("node-1") == []
    assert server.requests[0].target == "/v1/nodes/node-1/state"
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_a_mesh_of_ten_thousand_peers_fits(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    peers = [
        {"id": f"peer-{i}", "public_key": "k" * 44, "mesh_ip": "fd00::1"} for i in range(10_000)
    ]
    server.script = [json_reply({"peers": peers})]
    assert len(await plane.fetch_peers("node-1")) == 10_000


PEER = {"id": "p1", "public_key": "pk", "mesh_ip": "10.0.0.2"}
NO_PEERS = {
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "a field missing": b'{"id": "p2", "mesh_ip": "10.0.0.3"}',
    "a field of another type": b'{"id": 2, "public_key": "pk", "mesh_ip": "10.0.0.3"}',
    "a field that is null": b'{"id": "p2", "public_key": "pk", "mesh_ip": null}',
    "broken UTF-8": b'{"id": "\xff", "public_key": "pk", "mesh_ip": "10.0.0.3"}',
}


@pytest.mark.parametrize("name", NO_PEERS)
async def test_an_entry_that_is_no_peer_costs_itself_and_is_named(
    server: ScriptedServer, plane: ControlPlane, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    entries = b"[%b, %b]" % (NO_PEERS[name], json.dumps(PEER).encode())
    admission = json.dumps(ADMISSION).encode().removesuffix(b"}")
    server.script = [
        Reply(200, b'{"peers": %b}' % entries),
        Reply(200, b'%b, "peers": %b}' % (admission, entries)),
    ]
    assert await plane.fetch_peers("node-1") == [Peer(**PEER)]
    assert (await plane.register("boot", "pk", "host", {})).peers == [Peer(**PEER)]
    (record,) = map(vars, caplog.records)  # the same again within five minutes
    assert (record["message"], record["component"]) == ("peers left out", "api")
    assert record["count"] == 1
    assert record["error"].startswith("entry 1: ")


async def test_a_name_with_half_a_character_costs_nobody(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    half = json.dumps(PEER | {"id": "p\ud8002"})
    server.script = [Reply(200, f'{{"peers": [{half}, {json.dumps(PEER)}]}}'.encode())]
    assert [peer.id for peer in await plane.fetch_peers("node-1")] == ["p\ufffd2", "p1"]


async def test_null_is_a_registration_without_peers(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [json_reply({**ADMISSION, "peers": None}), json_reply(ADMISSION)]
    for _ in range(2):
        assert (await plane.register("boot", "pk", "host", {})).peers == []


async def test_a_list_of_a_hundred_thousand_peers_holds_up_no_other_task(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [json_reply({"peers": [PEER] * 100_000})]
    asking = asyncio.create_task(plane.fetch_peers("node-1"))
    await server.asked.wait()
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await asking) == 100_000
    assert turns >= 100


async def test_an_answer_of_millions_of_values_is_refused_before_they_are_made(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [Reply(200, b'{"peers": [%b0]}' % (b"0," * 1_000_000))]
    with pytest.raises(DecodeError, match="the answer has more than 1000000 values"):
        await plane.fetch_peers("node-1")


ADMISSION = {
    "node_id": "node-1",
    "mesh_ip": "10.0.0.1",
    "node_secret_key": "k" * 32,
    "auth_token": "fresh",
}


async def test_registering_sends_the_bootstrap_token_and_no_other(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [json_reply({**ADMISSION, "peers": [PEER], "new": 1}, 201)]
    admitted = await plane.register("boot", "pk", "host-ü", {"os": "linux"})
    assert admitted == Registration(**ADMISSION, peers=[Peer(**PEER)])
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/register")
    assert "Authorization" not in request.headers
    assert TOKEN not in request.body.decode()
    assert json.loads(request.body) == {
        "token": "boot",
        "public_key": "pk",
        "hostname": "host-ü",
        "metadata": {"os": "linux"},
    }


GARBLED = {
    "nothing": b"",
    "HTML": b"<html></html>",
    "cut JSON": b'{"key": "a',
    "an array": b"[]",
    "null": b"null",
    "wrong types": b'{"key": 1, "node_id": 1, "peers": 1}',
    "broken UTF-8": b'"\xff"',
    "great depth": b'{"x":' * 9_000,
}


@pytest.mark.parametrize("name", GARBLED)
@pytest.mark.parametrize("call", ["secret", "peers", "register"])
async def test_a_garbled_answer_is_a_decode_error(
    server: ScriptedServer, plane: ControlPlane, name: str, call: str
) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "secret": lambda: plane.fetch_secret("node-1", "local"),
        "peers": lambda: plane.fetch_peers("node-1"),
        "register": lambda: plane.register("boot", "pk", "host", {}),
    }
    server.script = [Reply(200, GARBLED[name])]
    with pytest.raises(DecodeError, match="not an answer this client understands"):
        await calls[call]()


@pytest.mark.parametrize("missing", list(SECRET))
async def test_a_secret_with_a_field_missing_is_a_decode_error(
    server: ScriptedServer, plane: ControlPlane, missing: str
) -> None:
    server.script = [json_reply({k: v for k, v in SECRET.items() if k != missing})]
    with pytest.raises(DecodeError, match=missing):
        await plane.fetch_secret("node-1", "local")


async def test_an_answer_beyond_the_cap_is_no_answer(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [json_reply({**SECRET, "pad": "x" * 70_000})]
    with pytest.raises(DecodeError, match="longer than 65536 bytes"):
        await plane.fetch_secret("node-1", "local")


# Its life


async def test_nothing_is_opened_before_the_first_request_and_closing_is_idempotent() -> None:
    async def talk(_: Connection) -> None:
        pass

    async with RawServer(talk) as server:
        async with ControlPlane(Config(server.url)) as plane:
            await plane.aclose()
            await plane.aclose()
        async with ControlPlane(Config(server.url)) as plane:
            with pytest.raises(TransportError):
                await plane.report_metrics("node-1", EXAMPLE)
        assert server.connections == 1


async def test_a_closed_client_stays_closed(server: ScriptedServer, plane: ControlPlane) -> None:
    await plane.report_metrics("node-1", EXAMPLE)
    await plane.aclose()
    await plane.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await plane.report_metrics("node-1", EXAMPLE)
    assert len(server.requests) == 1


@pytest.mark.parametrize("reports_before", [0, 1])
async def test_closing_fails_the_requests_under_way(
    server: ScriptedServer, plane: ControlPlane, reports_before: int
) -> None:
    for _ in range(reports_before):
        await plane.report_metrics("node-1", EXAMPLE)
    server.script = [asyncio.Event()]
    server.asked.clear()
    report = asyncio.create_task(plane.report_metrics("node-1", EXAMPLE))
    await server.next_request()
    await plane.aclose()
    with pytest.raises(TransportError):
        await report


async def test_cancelling_a_request_leaves_the_client_usable(
    server: ScriptedServer, plane: ControlPlane
) -> None:
    server.script = [asyncio.Event(), Reply()]
    report = asyncio.create_task(plane.report_metrics("node-1", EXAMPLE))
    await server.next_request()
    report.cancel()
    with pytest.raises(asyncio.CancelledError):
        await report
    await plane.report_metrics("node-1", EXAMPLE)
    assert len(server.requests) == 2
