"""Hostile bodies: each is refused for its own reason, and costs little before that."""

from __future__ import annotations

import gzip
import json
import os
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import MetricBatch
from plexd_server.routes.reports import MAX_POINTS
from plexd_server.web.body import MAX_COMPRESSED_BYTES, MAX_DECOMPRESSED_BYTES
from server.running import Client, create_node, gzipped, running
from support.points import AGENT, EXAMPLE, LATENCY, documents

if TYPE_CHECKING:
    import aiohttp

    from server.conftest import Shared

METRICS = "/v1/nodes/n1/metrics"
REPEATS = 5
MOST_CPU_SECONDS = 0.1
ATTEMPTS = 5  # others may have the processor's caches meanwhile
_TICKS = os.sysconf("SC_CLK_TCK")

SMALLEST = (
    b'{"timestamp":"2026-02-12T10:30:00Z","group":"latency","data":{"peer_id":"a","rtt_nano":1}}'
)


def packed(body: bytes) -> bytes:
    return gzip.compress(body, 9)


def filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    """As many pieces as a body may have."""
    count = (MAX_DECOMPRESSED_BYTES - len(start) - len(end)) // len(piece)
    return start + piece * count + end


def with_a_long_name() -> bytes:
    """A gzip without data, whose header has a file name of a megabyte."""
    return b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (MAX_COMPRESSED_BYTES - 10)


def corpus() -> dict[str, tuple[bytes, int]]:
    """Each body with its status; packing them takes seconds."""
    bomb = packed(bytes(200 * 1024 * 1024))
    return {
        "bomb": (bomb, 413),
        "bomb in a bomb": (packed(bomb), 400),
        "gzip of gzip": (packed(packed(EXAMPLE.to_json())), 400),
        "empty members": (packed(b"") * (MAX_COMPRESSED_BYTES // 20), 400),
        # Beyond 16 MiB the server stops reading, and a sender sees a reset in place of the answer.
        "hundreds of thousands of them": (packed(b"") * 800_000, 413),
        "stored, not compressed": (gzip.compress(bytes(MAX_COMPRESSED_BYTES + 1), 0), 413),
        "cut bomb": (bomb[:8000], 400),
        "bomb and more": (packed(bytes(MAX_DECOMPRESSED_BYTES)) + b"more", 400),
        "wrong checksum": (packed(bytes(MAX_DECOMPRESSED_BYTES))[:-8] + bytes(8), 400),
        "wrong length": (packed(EXAMPLE.to_json())[:-4] + bytes(4), 400),
        "long name in the header": (with_a_long_name(), 400),
        "zlib": (zlib.compress(EXAMPLE.to_json()), 400),
        "too many points": (packed(filled(b"[" + SMALLEST, b"," + SMALLEST, b"]")), 413),
        "too many objects": (packed(filled(b"[{}", b",{}", b"]")), 413),
        "deep arrays": (packed(filled(b"", b"[", b"")), 422),
        "deep objects": (packed(filled(b"", b'[{"a":', b"")), 413),
        "digits": (packed(filled(b'[{"group":', b"1", b"}]")), 422),
        "a text": (packed(filled(b'["', b"a", b'"]')), 422),
        "escapes": (packed(filled(b'["', rb"\u0041", b'"]')), 422),
        "one member again and again": (
            packed(
                filled(SMALLEST[:1], b'"timestamp":"2026-02-12T10:30:00Z",', b'"group":"latency"}')
            ),
            422,
        ),
    }


class Meter:
    """What a process uses."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def forget_peak(self) -> None:
        """Forget the peak of the past."""
        (self._proc / "clear_refs").write_text("5")

    def kib(self, name: str) -> int:
        return int((self._proc / "status").read_text().partition(f"{name}:")[2].split()[0])


@pytest.mark.slow
async def test_any_hostile_body_is_refused_at_little_cost(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with running(tmp_path / "d", "--node-rate", "0") as server:
        node, meter = Client(session, server.url, token), Meter(server.process.pid)
        bodies = corpus()
        for body in (
            gzipped(EXAMPLE.to_json()),
            bodies["bomb"][0],
        ):  # not counted: the first costs more
            await node.post(METRICS, body, Content_Encoding="gzip")
        meter.forget_peak()
        before = meter.kib("VmRSS")
        for name, (body, status) in bodies.items():
            taken = list[float]()
            while not taken or (min(taken) >= MOST_CPU_SECONDS and len(taken) < ATTEMPTS):
                began = meter.cpu_seconds()
                for _ in range(REPEATS):
                    answer = await node.post(METRICS, body, Content_Encoding="gzip")
                    assert (answer.status, answer.json["status"]) == (status, status), name
                    assert len(answer.body) < 1000
                taken.append((meter.cpu_seconds() - began) / REPEATS)
            assert min(taken) < MOST_CPU_SECONDS, name
        rise = meter.kib("VmHWM") - before
        assert (await node.get("/healthz")).status == 200
        latest = await node.get("/v1/nodes/n1/latest")

    # The front is small, so a body of 8 MiB, what is made of it and what the heap keeps all show.
    assert rise < 24 * 1024
    assert len(latest.json["points"]) == len(EXAMPLE)


@pytest.mark.slow
async def test_the_largest_allowed_report_is_accepted_at_little_cost(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    body = MetricBatch([LATENCY] * MAX_POINTS).to_json()
    padded = body[:-1] + b" " * (MAX_DECOMPRESSED_BYTES - len(body)) + b"]"
    with running(tmp_path / "d") as server:
        node, meter = Client(session, server.url, token), Meter(server.process.pid)
        await node.post(METRICS, gzipped(EXAMPLE.to_json()), Content_Encoding="gzip")
        meter.forget_peak()
        before = meter.kib("VmRSS")
        began = time.monotonic()
        answer = await node.post(METRICS, gzipped(padded), Content_Encoding="gzip")
        assert time.monotonic() - began < 20
        rise = meter.kib("VmHWM") - before

    assert (answer.status, answer.json["accepted"]) == (200, MAX_POINTS)
    assert rise < 64 * 1024


def spoilt(find: bytes, put: bytes, index: int = 2) -> bytes:
    """A report whose point at ``index`` (2: latency) has ``put`` in place of ``find``."""
    points = [json.dumps(point).encode() for point in documents()]
    assert points[index].count(find) >= 1
    points[index] = points[index].replace(find, put)
    return b"[" + b",".join(points) + b"]"


RTT = b'"rtt_nano": 15000000'
LOAD = b'"load_avg_1": 1.5'
PEER = b'"peer-abc-123"'


@pytest.mark.parametrize(
    ("body", "status", "index", "field"),
    [
        (spoilt(LOAD, b'"load_avg_1": NaN', 0), 400, None, None),
        (spoilt(LOAD, b'"load_avg_1": Infinity', 0), 400, None, None),
        (spoilt(LOAD, b'"load_avg_1": -Infinity', 0), 400, None, None),
        (spoilt(LOAD, b'"load_avg_1": 1e400', 0), 422, 0, "data.load_avg_1"),
        (spoilt(LOAD, b'"load_avg_1": 1' + b"0" * 5000, 0), 422, 0, "data.load_avg_1"),
        (spoilt(LOAD, b'"load_avg_1": +1', 0), 400, None, None),
        (spoilt(LOAD, b'"load_avg_1": 01', 0), 400, None, None),
        (spoilt(LOAD, b'"load_avg_1": "1"', 0), 422, 0, "data.load_avg_1"),
        (spoilt(LOAD, b'"load_avg_1": -1', 0), 422, 0, "data.load_avg_1"),
        (spoilt(RTT, b'"rtt_nano": 1e400'), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": 1.5'), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": -2'), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": 9223372036854775808'), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": 1' + b"0" * 5000), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": ' + b"[" * 100_000), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": true'), 422, 2, "data.rtt_nano"),
        (spoilt(RTT, b'"rtt_nano": null'), 422, 2, "data.rtt_nano"),
        (spoilt(PEER, b'"' + rb"\ud800" + b'"'), 400, None, None),
        (spoilt(PEER, b'"' + rb"\udc00\ud800" + b'"'), 400, None, None),
        (spoilt(PEER, b'"\xed\xa0\x80"'), 400, None, None),
        (spoilt(PEER, b'"\x00"'), 400, None, None),
        (spoilt(PEER, b'"a\nb"'), 400, None, None),
        (spoilt(PEER, b'"' + b"x" * 257 + b'"'), 422, 2, "peer_id"),
        (b"\xef\xbb\xbf[]", 400, None, None),
        ("[]".encode("utf-16"), 400, None, None),
        (b"[" * 100_000, 422, 0, None),
        (b"[" + b'{"timestamp":' * 5000, 400, None, None),
        (b'[{"k":' + b'[1,{"k":' * 900 + b"1", 400, None, None),
    ],
)
async def test_hostile_json_is_refused_with_place_and_reason(
    n1: Client, body: bytes, status: int, index: int | None, field: str | None
) -> None:
    answer = await n1.post(METRICS, body)

    problem: dict[str, Any] = answer.json
    assert (answer.status, problem.get("index"), problem.get("field")) == (status, index, field)
    assert problem["detail"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    ("members", "status", "index", "field"),
    [(1_000_000, 413, None, None), (500_000, 422, 0, "group")],
)
async def test_a_point_of_many_members_is_refused_with_place_and_reason(
    n1: Client, members: int, status: int, index: int | None, field: str | None
) -> None:
    body = b"[{" + b",".join(b'"k%d":1' % n for n in range(members)) + b"}]"
    await test_hostile_json_is_refused_with_place_and_reason(n1, body, status, index, field)


async def test_unusual_json_is_read_as_other_parsers_read_it(
    shared: Shared, operator: Client
) -> None:
    n3 = operator.with_token(shared.n3)
    soon = datetime.now(UTC) + timedelta(hours=23.9)  # others have reported of a day ahead
    peer = rb'"\u0000 \ud83d\ude00"'  # a NUL and a pair of surrogates
    twice = b'{"timestamp":"%b","group":"latency","data":{"peer_id":%b,%b}}' % (
        f"{soon:%Y-%m-%dT%H:%M:%SZ}".encode(),
        peer,
        b'"rtt_nano":1,"rtt_nano":-0',
    )

    assert (await n3.post("/v1/nodes/n3/metrics", b"[" + twice + b"]")).status == 200

    points = (await operator.get("/v1/nodes/n3/latest")).json["points"]
    found = next(point for point in points if point.get("peer_id") == "\0 \U0001f600")
    assert found["data"]["rtt_nano"] == 0  # of two members with one name the last counts


@pytest.mark.parametrize(
    ("points", "status"),
    [(0, 200), (1, 200), (100, 200), (101, 200), (MAX_POINTS, 200), (MAX_POINTS + 1, 413)],
)
async def test_a_report_may_hold_any_number_of_points_up_to_the_bound(
    n1: Client, points: int, status: int
) -> None:
    answer = await n1.post(METRICS, MetricBatch([AGENT] * points).to_json())

    assert answer.status == status, answer.body
    assert answer.json.get("accepted", points) == points


@pytest.mark.slow
async def test_a_million_points_are_too_many_in_either_form(n1: Client) -> None:
    body = MetricBatch([LATENCY]).to_json()[1:-1]
    million = b"[" + b",".join([body] * 1_000_000) + b"]"

    assert (await n1.post(METRICS, million)).status == 413
    assert (await n1.post(METRICS, gzipped(million), Content_Encoding="gzip")).status == 413


@pytest.mark.parametrize(("length", "status"), [(1, 200), (256, 200), (257, 422), (100_000, 422)])
async def test_a_peers_name_has_a_bounded_length(n1: Client, length: int, status: int) -> None:
    body = spoilt(PEER, json.dumps("ä" * length).encode())

    assert (await n1.post(METRICS, body)).status == status


async def test_names_full_of_braces_are_accepted_in_small_reports(n1: Client) -> None:
    body = json.loads(MetricBatch([LATENCY] * 25).to_json())
    for point in body:
        point["peer_id"] = point["data"]["peer_id"] = "{" * 256

    assert (await n1.post(METRICS, json.dumps(body).encode())).status == 200
    # After this the sender cuts it in pieces.
    assert (await n1.post(METRICS, json.dumps(body * 2).encode())).status == 413


@pytest.mark.slow
@pytest.mark.parametrize("place", ["point", "data"])
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    "name", ["received_at", "node_id", "accepted", "id", "__class__", "Timestamp", "", "x" * 90]
)
async def test_a_field_that_is_not_the_senders_to_set_changes_nothing(
    n1: Client, place: str, index: int, name: str
) -> None:
    """It may be a newer sender's; it is skipped."""
    report = documents()
    where = report[index] if place == "point" else report[index]["data"]
    where[name] = "n2"

    answer = await n1.post(METRICS, json.dumps(report).encode())

    assert answer.status == 200
    stored = (await n1.get("/v1/nodes/n1/latest")).json["points"]
    assert stored
    assert "n2" not in json.dumps(stored)


@pytest.mark.parametrize("name", ["node_id", "mesh_ip", "auth_token", "simulated", "peers"])
async def test_a_registration_cannot_choose_what_the_server_assigns(
    nobody: Client, name: str
) -> None:
    body = {"token": "plexd-join-none", "public_key": "A" * 43 + "=", name: "n1"}

    answer = await nobody.post("/v1/register", json.dumps(body).encode())

    assert answer.status == 422
    assert name in answer.json["detail"]
