"""Making the recordings of this version with its own agent and server.

The server runs at a fixed date. The agent's collectors read a machine that was made up, so that
the points are always the same; tokens, keys and epochs are random, as ever.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from base64 import b64encode
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
import msgspec
from msgspec import Raw

from plexd import __version__
from plexd.agent.identity import Identity, load_identity
from plexd.api import BatchName, Config, ControlPlane, MetricBatch, MetricPoint, Predecessor
from plexd.spool import DiskSpool, Refusal
from plexd_server.registry import Registry
from plexd_server.upkeep.quiesce import writes_paused
from releases.machine import Machine
from releases.proxy import RecordingProxy
from releases.recordings import (
    OPERATOR_TOKEN,
    Asked,
    Recording,
    SpoolContents,
    asking,
    pack,
    served_at,
    settled,
    unpack,
)
from support.clocks import DatedClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["record"]

NOW: Final = datetime(2026, 11, 28, 12, tzinfo=UTC)
BERLIN, ROME, OSLO = "berlin", "rome", "oslo"
SECRET: Final = "local-endpoint"
_OLD: Final = timedelta(days=8)  # older than a spool keeps points
_PAST: Final = timedelta(minutes=5)
_CYCLE_SECONDS: Final = 15
_BATCH: Final = 100


class Tokens(NamedTuple):
    """What the callers of the second server need."""

    berlin: str
    rome: str
    ingest: str
    bootstrap: str


class Kept(NamedTuple):
    """Where the copies of both data directories are."""

    agent: Path
    server: Path


async def record(release: Path, work: Path) -> None:
    """Write the recordings of this version into ``release``; both are directories."""
    live, agent = work / "live" / "server", work / "agent"
    kept = Kept(work / "kept-agent", work / "kept-server")
    with served_at(NOW, live) as server:
        tokens, contents = await _fill(server.url, live, agent, kept)
    pack(kept.agent, release / "agent.tar.xz")
    pack(kept.server, release / "server.tar.xz")
    spool = msgspec.json.format(msgspec.json.encode(contents), indent=1)
    (release / "spool.json").write_bytes(spool + b"\n")
    copy = unpack(release / "server.tar.xz", work / "again" / "server")
    with served_at(NOW, copy) as server:
        async with RecordingProxy(server.url) as proxy:
            await settled(server.url)
            await _read(proxy, tokens)
            await _report(proxy, tokens, work / "oslo")
            await _be_refused(proxy, tokens)
            await _browse(proxy)
    Recording(__version__, NOW, OSLO, proxy.exchanges).save(release)


# The first server, whose data directory is kept


async def _fill(url: str, data_dir: Path, agent: Path, kept: Kept) -> tuple[Tokens, SpoolContents]:
    """Put something into every table, and copy both directories as a power cut would leave them."""
    tokens = await asyncio.to_thread(_operate, data_dir)
    berlin = await _enrol(url, agent, tokens.berlin, BERLIN)
    rome = await _enrol(url, agent.with_name("rome"), tokens.rome, ROME)
    await _log_in(url)
    machine = Machine(NOW - _PAST - _OLD, ROME, "athens")
    async with (
        _plane(url, berlin) as plane,
        DiskSpool(agent / "spool", node_id=BERLIN, clock=machine.clock) as spool,
    ):
        await spool.append([machine.other(rpm=900)])
        await machine.clock.advance(_OLD.total_seconds())
        for _ in range(4):
            await _collect(machine, spool)
        await _deliver(plane, spool)
        await _lose_points(url, rome)
        await _collect(machine, spool)
        with writes_paused(data_dir):
            await _deliver(plane, spool)
            await asyncio.to_thread(_copy, data_dir, kept.server)
        contents = await _leave(machine, spool)
        await asyncio.to_thread(_copy, agent, kept.agent)
    named = Tokens(berlin.auth_token, rome.auth_token, tokens.ingest, tokens.bootstrap)
    return named, contents


def _operate(data_dir: Path) -> Tokens:
    """Do what operators do; the tokens of ``berlin`` and ``rome`` are for their enrolment."""
    with closing(Registry(data_dir, clock=DatedClock(NOW - timedelta(days=40)))) as before:
        before.create_node("gone")
        before.revoke_node("gone")
        before.prune(NOW - timedelta(days=30))
    with closing(Registry(data_dir, clock=DatedClock(NOW))) as registry:
        registry.mesh_network = "10.99.0.0/24"
        registry.create_node("paris", mesh_ip="10.99.0.77", public_key=_key())
        registry.revoke_node("paris")
        registry.create_node(OSLO)
        ingest = registry.create_ingest_token(OSLO)
        registry.secrets.set(OSLO, SECRET, "the token of the site")
        one_hour = timedelta(hours=1)
        two, _ = registry.tokens.create(uses=3, expires_in=one_hour)
        bound, _ = registry.tokens.create(uses=1, expires_in=one_hour, node_id=OSLO)
    return Tokens(two, two, ingest, bound)


def _key() -> str:
    return b64encode(os.urandom(32)).decode()


async def _enrol(url: str, data_dir: Path, token: str, hostname: str) -> Identity:
    """Run ``plexd register``."""
    words = ["register", "--server", url, "--public-key", _key(), "--hostname", hostname]
    environment = {name: value for name, value in os.environ.items() if name[:6] != "PLEXD_"}
    environment |= {"PLEXD_DATA_DIR": str(data_dir), "PLEXD_TOKEN": token}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plexd", *words), env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await program.communicate()
    assert program.returncode == 0, said
    return load_identity(data_dir)


async def _log_in(url: str) -> None:
    async with aiohttp.ClientSession() as browser:
        answer = await asking(browser, url, Asked("GET", f"/login?token={OPERATOR_TOKEN}"))
    assert answer.status == 303


def _plane(url: str, identity: Identity) -> ControlPlane:
    return ControlPlane(Config(url, identity.auth_token))


async def _collect(machine: Machine, spool: DiskSpool) -> None:
    await spool.append(await machine.collect())
    await spool.append([machine.other(rpm=1200, fans=[{"name": "front"}])])
    await machine.clock.advance(_CYCLE_SECONDS)


async def _deliver(plane: ControlPlane, spool: DiskSpool) -> None:
    while (batch := await spool.head(_BATCH)) is not None:
        receipt = await plane.report_metrics(BERLIN, batch)
        assert batch.name is not None
        assert (receipt is not None, receipt and receipt.accepted) == (True, len(batch))
        await spool.acknowledge(batch.name)


async def _lose_points(url: str, rome: Identity) -> None:
    """Report so that the ledger has every reason, and a count of unknown keys."""
    machine = Machine(NOW - _PAST, BERLIN, "athens")
    sender = _Sender(_plane(url, rome), ROME)
    async with sender.plane, aiohttp.ClientSession() as session:
        for dropped in (0, 0, 7, 7):
            await machine.clock.advance(_CYCLE_SECONDS)
            await sender.send(await machine.collect(), dropped=dropped)
            sender.place += 2 * bool(dropped)
        future = msgspec.structs.replace(machine.other(), timestamp=NOW + timedelta(days=3))
        await sender.send([machine.other(), future], dropped=7)
        await sender.plane.report_metrics(ROME, MetricBatch(await machine.collect()))
        later = _Sender(sender.plane, ROME, Predecessor(sender.epoch, sender.place - 3, 1))
        await later.send(await machine.collect())
        for body, status in ((_newer(machine), 200), ("[5]", 422)):
            headers = _headers(rome.auth_token) | {"Plexd-Batch": later.name(1)}
            asked = Asked("POST", f"/v1/nodes/{ROME}/metrics", headers, body)
            assert (await asking(session, url, asked)).status == status
            later.place += 1


class _Sender:
    """Names points of an epoch of its own."""

    def __init__(self, plane: ControlPlane, node_id: str, after: Predecessor | None = None) -> None:
        self.plane = plane
        self.epoch = secrets.token_hex(16)
        self.place = 1
        self._node_id = node_id
        self._after = after or Predecessor()

    def name(self, points: int) -> str:
        return str(BatchName(self.epoch, self.place, points))

    async def send(self, points: Sequence[MetricPoint], *, dropped: int = 0) -> MetricBatch:
        name = BatchName(self.epoch, self.place, len(points))
        batch = MetricBatch(points, name=name, dropped=dropped, after=self._after)
        await self.plane.report_metrics(self._node_id, batch)
        self.place += len(points)
        return batch


def _newer(machine: Machine) -> str:
    """Return a report with a key that no release knows."""
    text = MetricBatch([machine.other(rpm=1)]).to_json().decode()
    return text.replace("{", '{"newer":{"x":[1]},', 1)


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def _copy(data_dir: Path, kept: Path) -> None:
    """Copy files, but no socket, and no index of a log, which is made again."""
    kept.mkdir()
    for path in data_dir.rglob("*"):
        if path.is_file() and not path.name.endswith("-shm"):
            target = kept / path.relative_to(data_dir)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


async def _leave(machine: Machine, spool: DiskSpool) -> SpoolContents:
    """Leave points in the spool that wait, and one batch that was refused."""
    await _collect(machine, spool)
    refused = await spool.head(2)
    assert refused is not None
    await spool.set_aside(Refusal(refused, "HTTP 422: field x"))
    waiting = (await machine.collect(), [machine.other(rpm=0)])
    await spool.append(waiting[0])
    await spool.append(waiting[1])
    found = msgspec.structs.asdict(spool.statistics())
    letters = await spool.dead_letters()
    return SpoolContents(found, {each.reason: Raw(each.batch.to_json()) for each in letters})


# The second server, with which the exchanges are made


async def _read(proxy: RecordingProxy, tokens: Tokens) -> None:
    operator = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    minutes = "since=2026-11-28T11:50:00Z&until=2026-11-28T12:00:00Z&step=15"
    rome = f"/v1/nodes/{ROME}"
    paths = (
        *("/v1/nodes", "/v1/fleet", "/v1/mesh", "/v1/openapi.json", f"{rome}/latest"),
        *(f"{rome}/ledger", f"{rome}/peers", f"{rome}/series?field=load_avg_1&{minutes}"),
        f"{rome}/series?group=latency&peer_id={BERLIN}&field=rtt_nano&{minutes}",
        *("/livez", "/readyz", "/healthz"),
    )
    for path in paths:
        assert (await proxy.ask("GET", path, **operator)).status == 200, path
    await proxy.ask("GET", f"{rome}/latest", Authorization=f"Bearer {tokens.rome}")


async def _report(proxy: RecordingProxy, tokens: Tokens, data_dir: Path) -> None:
    """Enrol and report as the agent does."""
    identity = await _enrol(proxy.url, data_dir, tokens.bootstrap, OSLO)
    machine = Machine(NOW - _PAST, BERLIN)
    sender = _Sender(_plane(proxy.url, identity), OSLO)
    ingest = {"Authorization": f"Bearer {tokens.ingest}", "Content_Type": "application/json"}
    async with sender.plane as plane:
        await plane.fetch_peers(OSLO)
        await plane.fetch_secret(OSLO, SECRET)
        for group in [await machine.collect(), [machine.other(rpm=1)]]:
            for number in count():
                if not group[number:]:
                    break
                await sender.send(group[number : number + 1])
        batch = await sender.send(await machine.collect(), dropped=3)
        await plane.report_metrics(OSLO, batch)
        await machine.clock.advance(_CYCLE_SECONDS)
        again = MetricBatch(await machine.collect(), name=batch.name, after=batch.after)
        receipt = await plane.report_metrics(OSLO, again)
        assert receipt is not None
        assert receipt.clash
        text = MetricBatch(await machine.collect()).to_json().decode()
        await proxy.ask("POST", f"/ingest/{OSLO}", text, **ingest)
        await sender.send([*await machine.collect()])
    # A server that hears of the future from its only node doubts its own clock.
    berlin = ingest | {"Authorization": f"Bearer {tokens.berlin}"}
    await proxy.ask("POST", f"/v1/nodes/{BERLIN}/metrics", text, **berlin)
    asked = ingest | {"Authorization": f"Bearer {identity.auth_token}"}
    future = msgspec.structs.replace(machine.other(), timestamp=NOW + timedelta(days=3))
    ahead = MetricBatch([machine.other(), future]).to_json().decode()
    for body in (_newer(machine), "[]", "null", ahead):
        await proxy.ask("POST", f"/v1/nodes/{OSLO}/metrics", body, **asked)


async def _be_refused(proxy: RecordingProxy, tokens: Tokens) -> None:
    path = f"/v1/nodes/{BERLIN}/metrics"
    berlin = {"Authorization": f"Bearer {tokens.berlin}"}
    as_json = {"Content_Type": "application/json"}
    for body, status in (("[", 400), ("[5]", 422), ("[]", 415)):
        headers = berlin | (as_json if status != 415 else {"Content_Type": "text/plain"})
        answer = await proxy.ask("POST", path, body, **headers)
        assert answer.status == status, answer
    for token, status in (("wrong", 401), (tokens.rome, 403)):
        headers = as_json | {"Authorization": f"Bearer {token}"}
        assert (await proxy.ask("POST", path, "[]", **headers)).status == status
    for missing in ("secrets/none", "nothing"):
        answer = await proxy.ask("GET", f"/v1/nodes/{BERLIN}/{missing}", **berlin)
        assert answer.status == 404
    wrong = {"token": "wrong", "public_key": _key(), "capabilities": None}
    body = msgspec.json.encode(wrong).decode()
    assert (await proxy.ask("POST", "/v1/register", body, **as_json)).status == 401


async def _browse(proxy: RecordingProxy) -> None:
    operator = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    for path in ("/", "/mesh", f"/nodes/{ROME}", f"/login?token={OPERATOR_TOKEN}"):
        assert (await proxy.ask("GET", path, **operator)).status in {200, 303}, path
    await proxy.ask("GET", "/static/mesh.js")
    await proxy.ask("POST", "/logout", **operator)
