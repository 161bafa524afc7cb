"""No point is lost or doubled, over HTTP: names, duplicates, refusals and the ledger."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import MetricBatch
from plexd_server.routes.reports import MAX_POINTS
from server.reporting import Node, numbered
from server.running import Answer, Client, create_node, served
from support.points import AGENT, EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from server.conftest import Shared

METRICS = "/v1/nodes/n1/metrics"
BODY = EXAMPLE.to_json()


@pytest.fixture
async def node(tmp_path: Path, session: aiohttp.ClientSession) -> Any:
    """The node n1 of a server of its own, without a limit of its rate."""
    token = create_node(tmp_path / "d")["auth_token"]
    with served(tmp_path / "d", node_rate=0.0) as server:
        yield Node(Client(session, server.url, token))


NAME = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nonsense",
        f"{NAME};first=0;points=3",
        f"{NAME};first=01;points=3",
        f"{NAME};first=-1;points=3",
        f"{NAME};first=1;points=0",
        f"{NAME};first=1",
        f"{NAME};first=1;points=3;more=1",
        f"{NAME};first={2**63};points=3",
        f"{NAME};first={2**63 - 1};points=3",
        f"{NAME.upper()};first=1;points=3",
        f"{NAME[1:]};first=1;points=3",
        f"{NAME}; first=1; points=3",
        f"{NAME};seq=1;offset=0;of=3",
    ],
)
async def test_a_malformed_batch_name_is_400_and_named(n1: Client, name: str) -> None:
    answer = await n1.post(METRICS, BODY, Plexd_Batch=name)

    assert answer.status == 400
    assert answer.json["detail"].startswith("Plexd-Batch: ")


@pytest.mark.parametrize(
    "after",
    [
        "",
        "none",
        "none;skipped=-1",
        f"{NAME};skipped=0",
        f"{NAME}:1",
        f"{NAME}:01;skipped=0",
        f"{NAME}:{2**63};skipped=0",
        f"none;skipped={2**63}",
    ],
)
async def test_a_malformed_predecessor_is_400_and_named(n1: Client, after: str) -> None:
    answer = await n1.post(METRICS, BODY, Plexd_After=after)

    assert (answer.status, answer.json["field"]) == (400, "Plexd-After")


@pytest.mark.parametrize("dropped", ["", "x", "-1", "1.5", "1e3", "٣", "9" * 17, "9" * 5000])
async def test_a_loss_that_is_no_number_is_400_and_named(n1: Client, dropped: str) -> None:
    answer = await n1.post(METRICS, BODY, Plexd_Dropped=dropped)

    assert (answer.status, answer.json["detail"]) == (400, "Plexd-Dropped: not a number of points")


@pytest.mark.parametrize(("body", "points"), [(BODY, 2), (BODY, 4), (b"[]", 1)])
async def test_a_body_that_does_not_fit_its_batch_name_is_400(
    n1: Client, body: bytes, points: int
) -> None:
    answer = await Node(n1).send(1, body, points=points)

    assert answer.status == 400
    assert answer.json["detail"].startswith("Plexd-Batch: ")


@pytest.mark.slow
async def test_one_batch_two_hundred_times_on_32_connections_has_one_effect(
    node: Node, session: aiohttp.ClientSession
) -> None:
    del session
    answers: list[Answer] = []
    body = numbered(1, 2, 3)

    async def send_on() -> None:
        while len(answers) < 200:
            answer = await node.send(1, body, points=3)
            if answer.status != 429:  # at most four reports of one node at once
                answers.append(answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(32):
            tasks.create_task(send_on())

    assert {answer.status for answer in answers} == {200}
    assert {answer.json["accepted"] for answer in answers} == {3}
    assert sum(not answer.json["duplicate"] for answer in answers) == 1
    ledger = await node.ledger()
    assert (ledger["received"], ledger["duplicates"]) == (3, len(answers) - 1)
    assert await node.loads() == [1, 2, 3]


async def test_other_points_under_names_that_came_before_are_a_clash(node: Node) -> None:
    await node.send(1, numbered(1), points=1)

    answer = await node.send(1, numbered(2), points=1)

    assert answer.status == 200
    assert answer.json == {
        "accepted": 0, "duplicate": False, "clash": True, "rejected": 0, "reason": "",
        "upto": 1, "newest": "2026-02-12T10:31:00Z",
    }  # fmt: skip
    assert await node.loads() == [1]


async def test_pieces_of_a_batch_that_was_stored_unanswered_are_duplicates(node: Node) -> None:
    await node.send(1, numbered(1, 2, 3, 4), points=4)

    halves = [
        await node.send(1, numbered(1, 2), points=2),
        await node.send(3, numbered(3, 4), points=2),
    ]

    assert [half.json["duplicate"] for half in halves] == [True, True]
    assert await node.loads() == [1, 2, 3, 4]


async def test_batches_after_one_that_was_refused_leave_no_gap(node: Node) -> None:
    refusals = [
        await node.send(1, b"rubbish", points=100),
        await node.send(101, b'[{"group": "system"}]', points=50),
        await node.send(101, b'[{"group": "system"}]', points=50),
        await node.send(151, numbered(1), points=7, content_type="text/plain"),
        await node.send(158, b"[" + b" " * 9_000_000 + b"]", points=1),
    ]
    await node.send(159, numbered(1), points=1, dropped=158)
    ledger = await node.ledger()

    assert [answer.status for answer in refusals] == [400, 422, 422, 415, 413]
    assert (ledger["rejected"], ledger["evicted"], ledger["gap"]) == (158, 0, 0)
    assert [loss["points"] for loss in ledger["losses"]] == [100, 50, 7, 1]


async def test_a_batch_that_is_too_large_is_given_up_only_as_a_single_point(node: Node) -> None:
    many = MetricBatch([AGENT] * (MAX_POINTS + 1))
    whole = await node.send(1, many.to_json(), points=len(many))
    ledger = await node.ledger()
    first = await node.send(1, MetricBatch(many[:5000]).to_json(), points=5000)
    rest = await node.send(5001, MetricBatch(many[5000:]).to_json(), points=5001)

    assert (whole.status, ledger["rejected"]) == (413, 0)
    assert [answer.json["duplicate"] for answer in (first, rest)] == [False, False]
    assert (await node.ledger())["received"] == len(many)


async def test_a_ledger_is_read_by_its_node_and_by_the_operator(
    n1: Client, operator: Client, nobody: Client, shared: Shared
) -> None:
    paths = ("/v1/nodes/n1/ledger", "/v1/nodes/n2/ledger")
    own, foreign = [await n1.get(path) for path in paths]

    assert (own.status, foreign.status) == (200, 403)
    assert {(await operator.get(path)).status for path in paths} == {200}
    assert (await operator.get("/v1/nodes/unknown/ledger")).status == 404
    assert (await nobody.get(paths[0])).status == 401
    untouched = await operator.with_token(shared.n2).get(paths[1])
    assert untouched.headers["Cache-Control"] == "no-store"
    assert untouched.json.items() >= {"node_id": "n2", "gap": 0, "losses": []}.items()


async def test_a_node_with_a_new_spool_starts_again(node: Node) -> None:
    await node.send(1, numbered(1), points=1)
    node.epoch = secrets.token_hex(16)

    answer = await node.send(1, numbered(2), points=1)

    assert answer.json["duplicate"] is False
    ledger = await node.ledger()
    assert ledger["received"] == 2
    assert [loss["detail"] for loss in ledger["losses"]] == ["spool begun anew"]


async def test_a_node_whose_clock_was_put_back_reports_on(node: Node) -> None:
    """Its stamps repeat; points are told apart by their places, and none is refused."""
    answers = [await node.send(1, numbered(*range(60, 90)), points=30)]
    answers += [await node.send(31, numbered(*range(60, 90)), points=30)]
    answers += [await node.send(61, numbered(*range(30)), points=30)]
    ledger = await node.ledger()
    loads = await node.loads()

    assert [(a.status, a.json["duplicate"]) for a in answers] == [(200, False)] * 3
    assert (ledger["received"], ledger["rejected"], ledger["gap"]) == (90, 0, 0)
    assert loads == [float(minute) for minute in (*range(30), *range(60, 90))]


async def test_a_copy_of_a_node_shows_as_a_second_branch_with_its_address(node: Node) -> None:
    await node.send(1, numbered(1), points=1)
    first, node.after = node.epoch, f"{node.epoch}:1;skipped=0"
    for epoch, minute in (("a" * 32, 2), ("b" * 32, 9)):
        node.epoch = epoch
        await node.send(1, numbered(minute), points=1)
    ledger = await node.ledger()

    assert ledger["complete_until"] == "2026-02-12T10:32:00Z"
    assert {branch["address"] for branch in ledger["branches"]} == {"127.0.0.1"}
    assert first not in {branch["epoch"] for branch in ledger["branches"]}
    assert list(ledger["branches"][0]) == ["epoch", "complete_until", "received_at", "address"]


async def test_the_answers_json_has_all_that_the_documentation_names(node: Node) -> None:
    await node.send(3, numbered(1), points=1)

    ledger = await node.ledger()

    assert list(ledger) == [
        "node_id", "now", "complete_until", "received", "duplicates", "evicted", "rejected",
        "gap", "ahead", "losses", "branches", "machines", "unknown_keys",
    ]  # fmt: skip
    (loss,) = ledger["losses"]
    assert json.dumps(loss["since"]) == "null"
    assert list(loss) == ["reason", "since", "until", "noticed_at", "points", "detail"]
