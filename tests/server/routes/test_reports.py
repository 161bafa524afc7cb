from __future__ import annotations

import gzip
import json
import zlib
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plexd.api import MetricBatch
from plexd.metrics.testing import ManualClock
from plexd_server.routes.reports import MAX_POINTS
from plexd_server.web.body import MAX_COMPRESSED_BYTES, MAX_DECOMPRESSED_BYTES
from plexd_server.web.limits import Admission
from plexd_server.web.problems import Problem
from server.running import Answer, Client, connected, create_node, gzipped, running, served
from support.points import AGENT, EXAMPLE, EXAMPLE_JSON, LATENCY, SYSTEM

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from server.conftest import Shared

METRICS = "/v1/nodes/n1/metrics"
BODY = EXAMPLE.to_json()


@cache
def bomb() -> bytes:
    """A body that is small until it is unpacked, which takes half a second to pack."""
    return gzip.compress(bytes(200 * MAX_DECOMPRESSED_BYTES // 8), 9)


def assert_problem(answer: Answer, status: int) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    return problem


@pytest.mark.parametrize("path", ["body as it is", "gzip"])
async def test_a_report_is_accepted_and_counted(n1: Client, path: str) -> None:
    if path == "gzip":
        answer = await n1.post(METRICS, gzipped(BODY), Content_Encoding="gzip")
    else:
        answer = await n1.post(METRICS, BODY, Content_Encoding="identity")

    assert answer.status == 200
    assert answer.json == {
        "accepted": 3, "duplicate": False, "clash": False, "rejected": 0, "reason": ""
    }  # fmt: skip


async def test_the_specifications_own_example_is_accepted(n1: Client) -> None:
    answer = await n1.post(METRICS, EXAMPLE_JSON.encode())

    assert answer.json["accepted"] == 3


async def test_an_empty_report_is_accepted_and_changes_nothing(n1: Client) -> None:
    answer = await n1.post(METRICS, b"[]")

    assert (answer.status, answer.json["accepted"]) == (200, 0)


async def test_a_content_type_may_carry_a_charset(n1: Client) -> None:
    answer = await n1.post(METRICS, b"[]", content_type="Application/JSON; charset=utf-8")

    assert answer.status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic bjE6eA==",
        "Bearer " + "x" * 4000,
        "Bearer a b",
    ],
    ids=["missing", "scheme only", "empty", "unknown", "basic", "huge", "two words"],
)
async def test_a_report_without_a_known_token_is_401(nobody: Client, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}

    problem = await nobody.post(METRICS, BODY, **headers)

    assert_problem(problem, 401)
    assert problem.headers["WWW-Authenticate"].startswith("Bearer")


async def test_the_token_is_asked_for_before_anything_of_the_body(nobody: Client) -> None:
    answer = await nobody.post(METRICS, b"rubbish", content_type="text/plain")

    assert_problem(answer, 401)


async def test_foreign_and_unknown_and_impossible_node_ids_are_403_alike(n1: Client) -> None:
    ids = ("n2", "no-such-node", "%20", "..%2e", "x" * 5000, "%00", "n1%0d%0a")

    answers = [await n1.post(f"/v1/nodes/{node_id}/metrics", BODY) for node_id in ids]

    assert {(answer.status, answer.body) for answer in answers} == {(403, answers[0].body)}


async def test_the_operators_token_is_no_nodes_token(operator: Client) -> None:
    assert_problem(await operator.post(METRICS, BODY), 403)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-ndjson", "nonsense"])
async def test_any_other_content_type_is_415(n1: Client, content_type: str) -> None:
    assert_problem(await n1.post(METRICS, BODY, content_type=content_type), 415)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
async def test_any_other_encoding_is_415(n1: Client, encoding: str) -> None:
    assert_problem(await n1.post(METRICS, BODY, Content_Encoding=encoding), 415)


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0x01
    return bytes(changed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        BODY,
        gzipped(BODY)[:-1],
        gzipped(BODY)[:30],
        gzipped(BODY) + b"more",
        gzipped(BODY) * 2,
        _flipped(gzipped(BODY), -6),
        zlib.compress(BODY),
    ],
    ids=["empty", "plain", "cut by one", "cut", "trailing", "two members", "wrong CRC", "zlib"],
)
async def test_damaged_gzip_is_400(n1: Client, body: bytes) -> None:
    assert_problem(await n1.post(METRICS, body, Content_Encoding="gzip"), 400)


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"\xef\xbb\xbf[]", BODY.replace(b"abc", b"\xff"), b"[] []", b"[NaN]", b"nul"],
    ids=["empty", "cut", "byte order mark", "not UTF-8", "two documents", "NaN", "no literal"],
)
async def test_a_body_that_is_not_json_is_400(n1: Client, body: bytes) -> None:
    assert_problem(await n1.post(METRICS, body), 400)


def _changed(**fields: Any) -> bytes:
    points = json.loads(BODY)
    points[1]["data"] |= fields
    return json.dumps(points).encode()


async def test_a_point_that_breaks_the_contract_is_422_and_named(n1: Client) -> None:
    problem = assert_problem(await n1.post(METRICS, _changed(rx_bytes=-1)), 422)

    assert (problem["index"], problem["field"]) == (1, "data.rx_bytes")
    assert "rx_bytes" in problem["detail"]


def stamped(*ahead: timedelta) -> bytes:
    now = datetime.now(UTC)
    points = [msgspec.structs.replace(LATENCY, timestamp=now + each) for each in ahead]
    return MetricBatch(points).to_json()


async def test_a_point_may_be_a_day_ahead_and_no_more(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Points beyond are rejected one by one, as long as most nodes are not ahead."""
    tokens = [create_node(tmp_path / "d", name)["auth_token"] for name in ("n1", "n2", "n3")]
    body = stamped(timedelta(), timedelta(hours=25), timedelta(hours=23), timedelta(days=9))
    with served(tmp_path / "d") as server:
        n1, n2, n3 = (Client(session, server.url, token) for token in tokens)
        alone = await n1.post(METRICS, body)
        for other, name in ((n2, "n2"), (n3, "n3")):
            await other.post(f"/v1/nodes/{name}/metrics", stamped(timedelta()))
        answer = await n1.post(METRICS, body, Plexd_Batch=f"{'a' * 32};first=1;points=4")
        ledger = (await n1.get("/v1/nodes/n1/ledger")).json
        both_ahead = await n2.post("/v1/nodes/n2/metrics", body)

    assert_problem(alone, 503)
    assert "the server's clock is in doubt" in alone.json["detail"]
    assert alone.headers["Retry-After"]
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 2)
    assert answer.json["reason"].startswith("2 points more than 24 h ahead of the server's clock")
    assert (ledger["received"], ledger["ahead"], ledger["rejected"]) == (2, 2, 0)
    assert [loss["reason"] for loss in ledger["losses"]] == ["ahead"]
    assert_problem(both_ahead, 503)


async def test_points_of_weeks_ago_are_accepted(n1: Client) -> None:
    old = msgspec.structs.replace(LATENCY, timestamp=datetime(2020, 1, 1, tzinfo=UTC))

    assert (await n1.post(METRICS, MetricBatch([old]).to_json())).status == 200


async def test_a_problem_repeats_little_of_a_long_name(n1: Client) -> None:
    answer = await n1.post(METRICS, _changed(peer_id="x" * 100_000))

    assert len(assert_problem(answer, 422)["detail"]) < 300
    assert len(answer.body) < 1000


async def test_a_node_with_too_many_reports_under_way_is_429_and_others_are_not(
    shared: Shared, n1: Client, operator: Client
) -> None:
    head = (
        f"POST /v1/nodes/n2/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        f"Authorization: Bearer {shared.n2}\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    n2 = operator.with_token(shared.n2)
    with ExitStack() as stack:
        under_way = [stack.enter_context(connected(shared.server.url)) for _ in range(4)]
        for connection in under_way:
            connection.sendall(head.encode())
            assert b"100 Continue" in connection.recv(1000)  # the server is reading the body
        refusal = await n2.post("/v1/nodes/n2/metrics", b"[]")
        other = await n1.post(METRICS, b"[]")
        under_way[0].sendall(b"[]")
        assert under_way[0].recv(1000).startswith(b"HTTP/1.1 200")
        again = await n2.post("/v1/nodes/n2/metrics", b"[]")

    assert_problem(refusal, 429)
    assert int(refusal.headers["Retry-After"]) >= 1
    assert (other.status, again.status) == (200, 200)


def test_bodies_share_one_budget_of_bytes() -> None:
    admission = Admission(ManualClock(), total_bytes=10)
    with admission.admit("n1") as first:
        first.reserve(6)
        first.fill(6)  # in what was reserved
        with admission.admit("n2") as second, pytest.raises(Problem) as refusal:
            second.fill(5)
        assert refusal.value.status == 503
        assert "Retry-After" in refusal.value.headers
    with admission.admit("n2") as second:
        second.fill(10)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"1",
        b"[1]",
        b"[" * 100_000,
        _changed(rx_bytes=2**64),
        _changed(peer_id="another"),
    ],
    ids=["object", "number", "no point", "deep", "2^64", "other peer"],
)
async def test_json_of_another_shape_is_422_or_400(n1: Client, body: bytes) -> None:
    answer = await n1.post(METRICS, body)

    assert answer.status in {400, 422}
    assert_problem(answer, answer.status)


async def test_a_gzip_bomb_is_413(n1: Client) -> None:
    assert len(bomb()) < MAX_COMPRESSED_BYTES
    assert_problem(await n1.post(METRICS, bomb(), Content_Encoding="gzip"), 413)


@pytest.mark.slow
async def test_bombs_cost_bounded_memory(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with running(tmp_path / "d") as server:
        n1 = Client(session, server.url, token)
        await n1.post(METRICS, bomb(), Content_Encoding="gzip")
        before = server.peak_kib()
        for _ in range(8):
            await n1.post(METRICS, bomb(), Content_Encoding="gzip")

        assert server.peak_kib() - before < 16 * 1024


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_body_over_the_cap_is_413_even_to_a_client_still_sending(
    n1: Client, encoding: str
) -> None:
    body = b" " * (MAX_DECOMPRESSED_BYTES + 1)
    if encoding == "gzip":
        body = gzip.compress(bytes(MAX_COMPRESSED_BYTES * 3), 0)

    assert_problem(await n1.post(METRICS, body, Content_Encoding=encoding), 413)


@pytest.mark.parametrize(("points", "status"), [(MAX_POINTS, 200), (MAX_POINTS + 1, 413)])
async def test_a_report_holds_at_most_ten_thousand_points(
    n1: Client, points: int, status: int
) -> None:
    body = gzipped(MetricBatch([AGENT] * points).to_json())

    assert (await n1.post(METRICS, body, Content_Encoding="gzip")).status == status


async def test_a_refused_report_stores_nothing(shared: Shared, operator: Client) -> None:
    n2 = operator.with_token(shared.n2)
    good_then_bad = json.dumps([*json.loads(BODY), {"group": "system"}]).encode()

    await n2.post("/v1/nodes/n2/metrics", good_then_bad)
    await n2.post("/v1/nodes/n2/metrics", gzipped(BODY)[:-1], Content_Encoding="gzip")

    assert (await operator.get("/v1/nodes/n2/latest")).json["points"] == []


async def test_a_number_as_large_as_the_wire_allows_comes_back_unchanged(
    shared: Shared, operator: Client
) -> None:
    n3 = operator.with_token(shared.n3)
    points = json.loads(MetricBatch([SYSTEM]).to_json())
    soon = datetime.now(UTC) + timedelta(hours=1)  # the newest of this node
    points[0]["timestamp"] = f"{soon:%Y-%m-%dT%H:%M:%S}.123456Z"
    points[0]["data"]["disk_total_bytes"] = 2**64 - 1

    await n3.post("/v1/nodes/n3/metrics", json.dumps(points).encode())

    stored = (await operator.get("/v1/nodes/n3/latest")).json["points"]
    system = next(point for point in stored if point["group"] == "system")
    assert system["data"] == points[0]["data"]
    assert system["timestamp"] == points[0]["timestamp"]


# What only a newer node says


NEWER = b"""[
  {"timestamp": "2026-02-12T10:30:00Z", "group": "agent", "zone": 1, "data": %s},
  {"timestamp": "2026-02-12T10:30:00Z", "group": "path", "data": {"hops": [1, 2]}, "hop": null}
]"""


async def test_unknown_keys_are_in_the_nodes_ledger_and_logged_once_for_all_nodes(
    tmp_path: Path, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [create_node(tmp_path / "d", name)["auth_token"] for name in ("n1", "n2")]
    known = json.loads(MetricBatch([AGENT]).to_json())[0]["data"]
    body = NEWER % json.dumps(known | {"threads": 7}).encode()
    with served(tmp_path / "d") as server:
        ledgers = list[dict[str, Any]]()
        for name, token in zip(("n1", "n2"), tokens, strict=True):
            node = Client(session, server.url, token)
            answer = await node.post(f"/v1/nodes/{name}/metrics", body)
            assert (answer.status, answer.json["accepted"]) == (200, 2)
            latest = (await node.get(f"/v1/nodes/{name}/latest")).json["points"]
            assert {point["group"] for point in latest} == {"agent", "path"}
            ledgers.append((await node.get(f"/v1/nodes/{name}/ledger")).json)
    with served(tmp_path / "d") as server:
        node = Client(session, server.url, tokens[0])
        again = (await node.get("/v1/nodes/n1/ledger")).json

    assert [ledger["unknown_keys"] for ledger in (*ledgers, again)] == [3, 3, 3]
    (line,) = [record for record in caplog.records if record.message == "unknown keys skipped"]
    assert (line.node_id, line.keys) == ("n1", 3)  # type: ignore[attr-defined]  # set through extra
