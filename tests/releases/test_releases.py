"""What earlier releases wrote is opened, read and answered; what they answered is understood."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections import defaultdict
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import duckdb
import msgspec
import pytest
from aiohttp import web

from plexd import api, metrics
from plexd.agent import app
from plexd.agent.cli.main import main
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.identity import load_identity
from plexd.agent.peer_refresh import PeerRefresh
from plexd.metrics.testing import ManualClock
from plexd.nodeapi import decrypt_secret
from plexd.spool import DiskSpool, SpoolStatistics
from plexd.wireguard import PeerIndex
from releases.recordings import (
    OPERATOR_TOKEN,
    RELEASES,
    Asked,
    Exchange,
    Recording,
    SpoolContents,
    asking,
    served_at,
    settled,
    unpack,
)
from releases.shapes import differences, operations_of, shape
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.running import Answer

pytestmark = pytest.mark.slow

OPENAPI = "/v1/openapi.json"
OPERATOR = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
FAST = metrics.Config(
    collect_interval=timedelta(milliseconds=100), report_interval=timedelta(milliseconds=50)
)


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def recording(release: Path) -> Recording:
    return Recording.load(release)


# What a recording must have


def test_there_is_a_release() -> None:
    assert RELEASES
    assert all(Recording.load(path).version == path.name for path in RELEASES)


def test_every_route_that_the_release_declared_was_answered(recording: Recording) -> None:
    (declared,) = recording.of("GET", OPENAPI)
    routes = {
        (method.upper(), re.compile(re.sub("{.*?}", "[^/]+", path)))
        for path, methods in declared.json["paths"].items()
        for method in methods
    }
    asked = [
        (each.request.method, each.request.path.partition("?")[0])
        for each in recording.exchanges
        if each.status < 400
    ]
    assert len(routes) > 20
    assert [
        (method, path.pattern)
        for method, path in routes
        if not any(method == made and path.fullmatch(to) for made, to in asked)
    ] == []


def test_every_table_of_the_release_holds_something(release: Path, tmp_path: Path) -> None:
    data_dir = unpack(release / "server.tar.xz", tmp_path / "server")
    with closing(sqlite3.connect(data_dir / "registry.db")) as registry:
        _assert_filled(registry, "SELECT name FROM sqlite_master WHERE type = 'table'")
    with closing(duckdb.connect(data_dir / "points.duckdb")) as points:
        _assert_filled(points, "SHOW TABLES")
    agent = unpack(release / "agent.tar.xz", tmp_path / "agent")
    with closing(sqlite3.connect(agent / "spool" / "spool.db")) as spool:
        _assert_filled(spool, "SELECT name FROM sqlite_master WHERE type = 'table'")
    assert max(path.stat().st_size for path in (data_dir / "journal").iterdir()) > 1000


def _assert_filled(database: Any, names: str) -> None:
    tables = [name for (name,) in database.execute(names).fetchall()]
    rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    assert len(rows) > 2
    assert [name for name, count in rows.items() if not count] == []


# The server


async def test_a_server_opens_the_data_directory_and_answers_as_the_release_did(
    release: Path, recording: Recording, tmp_path: Path
) -> None:
    data_dir = unpack(release / "server.tar.xz", tmp_path / "server")
    with served_at(recording.now, data_dir) as server:
        await settled(server.url)
        async with aiohttp.ClientSession() as session:
            replay = Replay(session, server.url)
            wrong = {
                str(exchange): found
                for exchange in recording.exchanges
                if (found := await replay.again(exchange))
            }
    assert wrong == {}


# What is the same whenever the same server is asked the same.
SAME = (
    *("points", "times", "fields", "accepted", "duplicate", "clash", "rejected", "losses"),
    *("received", "duplicates", "evicted", "gap", "ahead", "complete_until", "unknown_keys"),
)


class Replay:
    """Makes requests again, with the token of the node that enrolled again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._tokens = dict[str, str]()

    async def again(self, exchange: Exchange) -> list[str]:
        """Return what is not as it was."""
        request = exchange.request
        if request.path.startswith("/static/"):
            return []  # these belong to the pages of their version
        answer = await asking(self._session, self._url, self._with_new_token(request))
        if answer.status != exchange.status:
            return [f"the status is {answer.status}"]
        if not exchange.is_json:
            return []
        if "auth_token" in exchange.json:
            self._tokens[exchange.json["auth_token"]] = answer.json["auth_token"]
        return _wrong_with(exchange, answer)

    def _with_new_token(self, request: Asked) -> Asked:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if token not in self._tokens:
            return request
        headers = request.headers | {"Authorization": f"{scheme} {self._tokens[token]}"}
        return msgspec.structs.replace(request, headers=headers)


def _wrong_with(exchange: Exchange, answer: Answer) -> list[str]:
    if exchange.request.path == OPENAPI:
        return [*differences(operations_of(exchange.json), operations_of(answer.json))]
    old, new = exchange.json, answer.json
    changed = [f"{key} is another" for key in SAME if key in old and old[key] != new.get(key)]
    return [*differences(shape(old), shape(new)), *changed]


# The agent


def test_every_report_is_read_and_written_as_the_release_did(recording: Recording) -> None:
    reports = recording.of("POST", f"/v1/nodes/{recording.node_id}/metrics")
    groups = set[str]()
    for each in reports:
        batch = api.decode_batch(each.request.body.encode())
        assert len(batch) == each.json["accepted"] + each.json["rejected"] or each.json["clash"]
        assert api.decode_batch(batch.to_json()) == batch
        if "Plexd-Batch" in each.request.headers:
            assert batch.to_json().decode() == each.request.body
            name = api.BatchName.parse(each.request.headers["Plexd-Batch"])
            assert name.points == len(batch)
            api.Predecessor.parse(each.request.headers["Plexd-After"])
        groups |= {point.group for point in batch}
    assert groups > {"system", "tunnel", "latency", "agent"}


async def test_the_spool_is_opened_and_its_points_reach_the_releases_own_server(
    release: Path, recording: Recording, tmp_path: Path
) -> None:
    """Both ends were upgraded at once, with everything that was under way."""
    agent = unpack(release / "agent.tar.xz", tmp_path / "agent")
    identity = load_identity(agent)
    kept = msgspec.json.decode((release / "spool.json").read_bytes(), type=SpoolContents)
    data_dir = unpack(release / "server.tar.xz", tmp_path / "server")
    with served_at(recording.now, data_dir) as server:
        config = api.Config(server.url, identity.auth_token)
        async with (
            api.ControlPlane(config) as plane,
            DiskSpool(
                agent / "spool", node_id=identity.node_id, clock=ManualClock(recording.now)
            ) as spool,
            aiohttp.ClientSession() as session,
        ):
            _assert_same(spool.statistics(), kept.statistics)
            letters = {each.reason: each.batch for each in await spool.dead_letters()}
            assert {
                reason: api.decode_batch(batch.to_json()) for reason, batch in letters.items()
            } == {reason: api.decode_batch(body) for reason, body in kept.dead_letters.items()}
            await _deliver(plane, identity.node_id, spool)
            done = spool.statistics()
            path = f"/v1/nodes/{identity.node_id}/ledger"
            ledger = (await asking(session, server.url, Asked("GET", path, OPERATOR))).json
    assert (done.waiting, ledger["received"]) == (0, done.acknowledged)
    assert (ledger["evicted"], ledger["gap"], ledger["duplicates"]) == (done.lost, 0, 0)
    assert len(ledger["branches"]) == 1


def _assert_same(found: SpoolStatistics, kept: dict[str, Any]) -> None:
    """Compare what has no unit: sizes are those of a version, and time goes on."""
    counts = [name for name in kept if name not in {"stored_bytes", "oldest_seconds"}]
    assert {name: getattr(found, name) for name in counts} == {name: kept[name] for name in counts}


async def _deliver(plane: api.ControlPlane, node_id: str, spool: DiskSpool) -> None:
    while (batch := await spool.head(5)) is not None:
        receipt = await plane.report_metrics(node_id, batch)
        assert receipt == api.Receipt(len(batch))
        assert batch.name is not None
        await spool.acknowledge(batch.name)


class ReplayServer:
    """Answers each path as a release did: with its good answers in turn, the last one for ever.

    ``answers`` are those that were not given yet.
    """

    def __init__(self, recording: Recording) -> None:
        self.answers = defaultdict[str, list[Exchange]](list)
        for each in recording.exchanges:
            if each.status == 200 and each.is_json:
                self.answers[each.request.path].append(each)
        self._last = {path: given[-1] for path, given in self.answers.items()}
        self.server = ScriptedServer(self._answer)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        waiting = self.answers[request.raw_path]
        given = waiting.pop(0) if waiting else self._last[request.raw_path]
        return web.Response(status=given.status, text=given.body, headers=given.headers)


@pytest.fixture
def as_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _process_state: None) -> Path:
    """The data directory of a machine that is about to become a node."""
    monkeypatch.setenv("PLEXD_DATA_DIR", str(tmp_path / "agent"))
    monkeypatch.setenv("PLEXD_TOKEN", "plexd-join-anything")
    return tmp_path / "agent"


async def test_this_agent_enrols_and_reports_to_a_server_that_answers_as_the_release_did(
    recording: Recording, as_machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plane = ReplayServer(recording)
    async with plane.server as server:
        key = recording.of("GET", f"/v1/nodes/{recording.node_id}/state")[0].json["peers"][0]
        line = ["register", "--server", server.url, "--public-key", key["public_key"]]
        assert await asyncio.to_thread(main, line) == 0
        identity = load_identity(as_machine)
        assert identity.node_id == recording.node_id

        config = api.Config(server.url, identity.auth_token)
        async with api.ControlPlane(config) as client:
            index = PeerIndex()
            await PeerRefresh(index, client, identity.node_id).refresh()
            assert key["id"] in index.peer_ids()
            sealed = await client.fetch_secret(identity.node_id, "local-endpoint")
            nsk = identity.node_secret_key.encode()
            assert decrypt_secret(nsk, sealed.ciphertext, sealed.nonce) == "the token of the site"

        settings = Settings(data_dir=None, wireguard=WireGuardSettings(interface=""))
        settings = replace(settings, api=config, metrics=FAST)
        caplog.set_level(logging.INFO)
        reports = f"/v1/nodes/{identity.node_id}/metrics"
        async with _running(settings, identity):
            while plane.answers[reports]:
                server.asked.clear()
                await server.next_request()
    events = [record.message for record in caplog.records if record.name == "plexd.metrics"]
    # A clash is a failure, after which the points are sent under other names.
    clash = events.index("another machine reports as this node")
    assert events[clash + 1] == "metrics report failed"
    assert events.count("metrics report accepted") == 2
    assert events.count("metrics report failed") == 1
    assert "points rejected" in events


@asynccontextmanager
async def _running(settings: Settings, identity: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(app.run(settings, identity))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_this_client_understands_every_answer_to_a_report(recording: Recording) -> None:
    answers = [each for each in recording.exchanges if each.request.path.endswith("/metrics")]
    assert len({each.status for each in answers}) > 3
    for each in answers:
        async with (
            ScriptedServer(_answering(each)) as server,
            api.ControlPlane(api.Config(server.url, "of-a-node")) as client,
        ):
            if each.status == 200:
                receipt = await client.report_metrics("n", api.MetricBatch([]))
                _assert_says(receipt, each.json)
            else:
                reason = re.escape(each.json["detail"])
                with pytest.raises(api.APIError, match=reason) as refusal:
                    await client.report_metrics("n", api.MetricBatch([]))
                assert refusal.value.status_code == each.status


def _assert_says(receipt: api.Receipt | None, answer: dict[str, Any]) -> None:
    assert receipt is not None
    newest = answer.pop("newest", None)
    assert {name: getattr(receipt, name) for name in answer} == answer
    assert receipt.newest == (newest and datetime.fromisoformat(newest))
    assert (receipt.newest is not None) == receipt.clash


def _answering(exchange: Exchange) -> Any:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=exchange.status, text=exchange.body, headers=exchange.headers)

    return answer
