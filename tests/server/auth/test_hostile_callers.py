"""Callers on foreign paths, with every name and every token: nothing is given or revealed."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import requests
from yarl import URL

from plexd.api import LatencyResult, MetricBatch, MetricPoint
from server.running import Client, command, create_node, running
from server.web.test_hostile_http import talk
from support.points import EXAMPLE, NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from server.conftest import Shared
    from server.running import Answer, Running

BODY = EXAMPLE.to_json()
NODE_ONLY = [
    "POST /v1/nodes/{}/metrics",
    "GET /v1/nodes/{}/state",
    "GET /v1/nodes/{}/secrets/token",
]
LOCAL = ["POST /ingest/{}"]
READING = [
    "GET /v1/nodes/{}/latest",
    "GET /v1/nodes/{}/ledger",
    "GET /v1/nodes/{}/peers",
    "GET /v1/nodes/{}/series?field=load_avg_1",
]
OVERVIEWS = ["GET /v1/nodes", "GET /v1/fleet", "GET /v1/mesh"]
EVERYTHING = [*NODE_ONLY, *LOCAL, *READING, *OVERVIEWS]
OTHER_VERBS = ["PUT", "DELETE", "PATCH"]


class Plane:
    """A server with two nodes, and a token of each kind."""

    def __init__(self, server: Running, tokens: dict[str, str], log: Path) -> None:
        self.server = server
        self.tokens = {**tokens, "operator": server.operator_token}
        self.log = log


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    data_dir = tmp_path_factory.mktemp("callers") / "data"
    tokens = {name: create_node(data_dir, name)["auth_token"] for name in ("n1", "n2", "gone")}
    made = command("ingest-token", "create", "n1", "--data-dir", data_dir)
    command("node", "revoke", "gone", "--data-dir", data_dir)
    tokens |= {"ingest": made.stdout.strip(), "nobody": "", "wrong": "wrong"}
    with running(data_dir, "--node-rate", "0") as server:
        yield Plane(server, tokens, data_dir.parent / "data.log")


async def ask(client: Client, question: str) -> Answer:
    method, path = question.split(" ")
    if method == "POST":
        return await client.post(path, BODY)
    return await client.ask(method, path)


def allowed(caller: str, question: str, node_id: str) -> bool:
    if question in OVERVIEWS:
        return caller == "operator"
    if question in LOCAL:
        return (caller, node_id) == ("ingest", "n1")
    return caller == node_id or (caller == "operator" and question in READING)


def told(answer: Answer) -> tuple[bytes, frozenset[tuple[str, str]]]:
    """All that may distinguish one refusal from another."""
    return answer.body, frozenset((k, v) for k, v in answer.headers.items() if k != "Date")


@pytest.mark.slow
async def test_each_token_opens_its_own_paths_and_refusals_reveal_nothing(
    plane: Plane, session: aiohttp.ClientSession
) -> None:
    refusals = set()
    for caller, token in plane.tokens.items():
        client = Client(session, plane.server.url, token)
        for question in EVERYTHING:
            for node_id in ("n1", "n2", "no-such-node"):
                answer = await ask(client, question.format(node_id))
                about = (caller, question, node_id, answer.status)
                if caller in {"nobody", "wrong", "gone"}:
                    assert answer.status == 401, about
                elif not allowed(caller, question, node_id):
                    assert answer.status == 403, about
                    refusals.add(told(answer))
                else:
                    assert answer.status in {200, 404}, about
    assert len(refusals) == 1  # the same for every caller, whether the node exists or not


async def test_nothing_is_written_by_a_foreign_token_and_the_operator_can_see_who_tried(
    plane: Plane, session: aiohttp.ClientSession
) -> None:
    for caller in ("n1", "ingest", "operator", "gone", "wrong", "nobody"):
        client = Client(session, plane.server.url, plane.tokens[caller])
        for path in ("/v1/nodes/n2/metrics", "/ingest/n2"):
            assert (await client.post(path, BODY)).status in {401, 403}
    operator = Client(session, plane.server.url, plane.server.operator_token)
    ledger = (await operator.get("/v1/nodes/n2/ledger")).json

    assert (ledger["received"], ledger["duplicates"], ledger["losses"]) == (0, 0, [])
    lines = [line for line in plane.log.read_text().splitlines() if "access refused" in line]
    assert {"by=n1", "by=operator"} <= {word for line in lines for word in line.split()}
    assert not any(token and token in plane.log.read_text() for token in plane.tokens.values())


@pytest.mark.parametrize("verb", OTHER_VERBS)
async def test_no_other_verb_does_anything_with_any_token(
    plane: Plane, session: aiohttp.ClientSession, verb: str
) -> None:
    for token in plane.tokens.values():
        client = Client(session, plane.server.url, token)
        for question in EVERYTHING:
            path = question.split(" ")[1].format("n1")
            assert (await client.ask(verb, path)).status == 405


IDS = [
    "..",
    "../n1",
    "..%2fn1",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2e%2e",
    "..%5cn1",
    "n1%00",
    "%00n1",
    "n1%0d%0aX-Evil:%201",
    "n1%0alevel=info%20msg=forged",
    "n1%20",
    "%20n1",
    "n1;x=y",
    "n%d0%b01",  # with the Cyrillic letter that looks like an a
    "%ef%bd%8e1",  # a full-width n
    "n1%e2%80%8b",  # a space without width
    "n1%cc%81",
    "%ff%fe",
    "'%20OR%20'1'='1",
    "n1'--",
    "n1';DROP%20TABLE%20nodes;--",
    "%25",
    "%252e%252e%252f",
    "*",
    "n1,n2",
    "%7B__name__=~%22.%2B%22%7D",
    "n1%22%7D%20or%20vector(1)",
    "$(id)",
    "a" * 10_000,
]


@pytest.mark.parametrize("node_id", IDS)
def test_an_impossible_node_id_reaches_nothing(plane: Plane, node_id: str) -> None:
    for caller in ("n1", "operator"):
        for question in [*NODE_ONLY, *LOCAL, *READING, "GET /nodes/{}", "GET /static/{}"]:
            method, path = question.format(node_id).split(" ")
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                f"Authorization: Bearer {plane.tokens[caller]}\r\n"
                "Content-Type: application/json\r\n"
            )
            body = f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
            request = head.encode() + (body if method == "POST" else b"\r\n")
            statuses, heard = talk(plane.server.url, request)
            assert len(statuses) == 1
            assert statuses[0] in {401, 403, 404, 405}, (question, heard[:200])
            assert b"X-Evil" not in heard.partition(b"\r\n\r\n")[0]
    assert not any(line.startswith("level=") for line in plane.log.read_text().splitlines())


NAMES = [
    "'; DROP TABLE latency; --",
    '"; DELETE FROM points; --',
    "a' OR '1'='1",
    '{"rtt_nano":1}',
    "a\r\nX-Evil: 1",
    "a\nb",
    "\x00",
    "a\x00b",
    "../../../etc/passwd",
    "%2e%2e%2f",
    '{__name__=~".+"}',
    'a"} or vector(1)',
    "a,b=c d 1",
    "${jndi:ldap://evil}",
    "\u202eabc",
    "а",  # noqa: RUF001 -- the Cyrillic letter is the point
    "a",
    "\ufeff",
    " ",
    "\U0010ffff",
    "x" * 256,
]


async def test_names_in_a_report_are_data_and_come_back_as_they_were_sent(
    plane: Plane, session: aiohttp.ClientSession
) -> None:
    points = [
        MetricPoint(timestamp=NOW, group="latency", peer_id=name, data=LatencyResult(name, number))
        for number, name in enumerate(NAMES)
    ]
    node = Client(session, plane.server.url, plane.tokens["n1"])
    assert (await node.post("/v1/nodes/n1/metrics", MetricBatch(points).to_json())).status == 200

    stored = (await node.get("/v1/nodes/n1/latest")).json["points"]
    found = {p["peer_id"]: p["data"]["rtt_nano"] for p in stored if p["group"] == "latency"}
    assert {name: found.get(name) for name in NAMES} == {n: i for i, n in enumerate(NAMES)}
    span = "since=2026-02-12T10:00:00Z&until=2026-02-12T11:00:00Z&step=3600"
    for number, name in enumerate(NAMES):
        asked = f"series?group=latency&field=rtt_nano&{span}&peer_id={quote(name, safe='')}"
        url = URL(f"{plane.server.url}/v1/nodes/n1/{asked}", encoded=True)
        headers = {"Authorization": f"Bearer {plane.tokens['n1']}"}
        async with session.get(url, headers=headers) as answer:
            assert answer.status == 200, name
            assert "X-Evil" not in answer.headers
            assert (await answer.json())["fields"]["rtt_nano"]["max"] == [number], name


TOKENS = {
    "missing": b"",
    "empty": b"Authorization: \r\n",
    "without a token": b"Authorization: Bearer\r\n",
    "of spaces": b"Authorization: Bearer   \r\n",
    "two": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    "two words": b"Authorization: Bearer a b\r\n",
    "not ASCII": "Authorization: Bearer ünïcode\r\n".encode(),
    "no text at all": b"Authorization: Bearer \xff\xfe\x80\r\n",
    "of tabs": b"Authorization: Bearer a\tb\r\n",
    "wrong": b"Authorization: Bearer wrong\r\n",
    "long": b"Authorization: Bearer " + b"x" * 60_000 + b"\r\n",
    "a scheme of another kind": b"Authorization: Basic bjE6eA==\r\n",
    "a cookie that is none": b"Cookie: \xff=;;;=\r\n",
    "a long cookie": b"Cookie: plexd-operator-1=" + b"x" * 60_000 + b"\r\n",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_any_invalid_token_is_401(shared: Shared, kind: str) -> None:
    head = b"POST /v1/nodes/n1/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"

    statuses, heard = talk(shared.server.url, head + TOKENS[kind] + b"Content-Length: 0\r\n\r\n")

    assert statuses == [401]
    assert b"www-authenticate: Bearer" in heard


def test_a_token_of_a_megabyte_is_not_even_read(shared: Shared) -> None:
    head = b"GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "

    statuses, _ = talk(shared.server.url, head + b"x" * 2**20 + b"\r\n\r\n")

    assert statuses in ([400], [])  # a sender may see a reset in place of the answer


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["node", "operator"])
def test_the_time_of_a_refusal_reveals_nothing_of_the_token(plane: Plane, whose: str) -> None:
    right = plane.tokens["n1" if whose == "node" else "operator"]
    # Right up to the last letter, and wrong from the first letter on.
    near = right[:-1] + ("a" if right[-1] != "a" else "b")
    far = ("a" if right[0] != "a" else "b") * len(right)
    times: dict[str, list[float]] = {near: [], far: []}
    order = [near, far] * 300
    random.Random(1).shuffle(order)  # other load on the machine affects both alike
    with requests.Session() as session:
        session.trust_env = False
        for token in order:
            headers = {"Authorization": f"Bearer {token}"}
            began = time.perf_counter()
            answer = session.get(f"{plane.server.url}/v1/nodes", headers=headers, timeout=10)
            times[token].append(time.perf_counter() - began)
            assert answer.status_code == 401

    # The chance that one takes longer than the other is a half, with an error of 2 % each time.
    pairs = [(a > b) + (a == b) / 2 for a in times[near] for b in times[far]]
    assert 0.35 < sum(pairs) / len(pairs) < 0.65


@pytest.mark.slow
def test_the_time_of_a_refusal_does_not_reveal_which_nodes_exist(plane: Plane) -> None:
    times: dict[str, list[float]] = {"n2": [], "none": []}
    order = ["n2", "none"] * 300
    random.Random(2).shuffle(order)
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {plane.tokens['n1']}"
        for node_id in order:
            url = f"{plane.server.url}/v1/nodes/{node_id}/latest"
            began = time.perf_counter()
            status = session.get(url, timeout=10).status_code
            times[node_id].append(time.perf_counter() - began)
            assert status in {403, 429}
            if status == 429:  # the node's own rate
                time.sleep(1)

    pairs = [(a > b) + (a == b) / 2 for a in times["n2"] for b in times["none"]]
    assert 0.35 < sum(pairs) / len(pairs) < 0.65
