"""The agent put together: what it reports, to whom, and how it ends."""

from __future__ import annotations

import asyncio
import gzip
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace as replace_struct

from plexd import api, metrics
from plexd.agent import app, one_cycle
from plexd.agent.cli.collect import collected_table
from plexd.agent.config.settings import Settings, SystemSettings, WireGuardSettings
from plexd.agent.identity import Identity
from plexd.icmp import PingError
from plexd.metrics.testing import ManualPeers, ScriptedPinger
from plexd.nodeapi import seal_secret
from support.servers import Reply, ScriptedServer
from support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

NSK = "0123456789abcdef0123456789abcdef"
IDENTITY = Identity(
    node_id="node-1", mesh_ip="10.99.0.1", node_secret_key=NSK, auth_token="node-token"
)
FAST = metrics.Config(
    collect_interval=timedelta(milliseconds=400), report_interval=timedelta(milliseconds=50)
)


# A node without a mesh: this machine's tunnels are other tests' business.
ALONE = Settings(data_dir=None, wireguard=WireGuardSettings(interface=""))


def settings_for(url: str, **changes: Any) -> Settings:
    config = api.Config(base_url=url, request_timeout=timedelta(seconds=5))
    return replace(ALONE, api=config, metrics=replace(FAST, **changes))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(app.run(settings, IDENTITY))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def requests(server: ScriptedServer, count: int) -> None:
    async with asyncio.timeout(20):
        while len(server.requests) < count:
            server.asked.clear()
            await server.asked.wait()


async def test_points_of_this_machine_and_of_the_agent_reach_the_control_plane() -> None:
    groups: set[str] = set()
    async with ScriptedServer() as plane, running(settings_for(plane.url)):
        count = 0
        async with asyncio.timeout(20):
            while groups != {"system", "agent"}:
                count += 1
                await requests(plane, count)
                body = gzip.decompress(plane.requests[count - 1].body)
                groups |= {point.group for point in api.decode_batch(body)}
    request = plane.requests[0]
    assert (request.method, request.target) == ("POST", "/v1/nodes/node-1/metrics")
    assert request.headers["Authorization"] == "Bearer node-token"


async def test_a_token_in_the_configuration_outranks_the_identitys() -> None:
    async with ScriptedServer() as plane:
        settings = settings_for(plane.url)
        settings = replace(settings, api=replace(settings.api, auth_token="configured"))
        async with running(settings):
            await requests(plane, 1)
    assert plane.requests[0].headers["Authorization"] == "Bearer configured"


async def test_without_a_local_endpoint_no_secret_is_asked_for() -> None:
    async with ScriptedServer() as plane, running(settings_for(plane.url)):
        await requests(plane, 3)
    assert {request.method for request in plane.requests} == {"POST"}


async def test_a_local_endpoint_gets_the_same_points_with_its_own_credential(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ciphertext, nonce = seal_secret(NSK.encode(), "local-token")
    sealed = api.SecretResponse(key="site", ciphertext=ciphertext, nonce=nonce, version=1)
    answer = Reply(body=msgspec.json.encode(sealed))
    tls = Authority.make(tmp_path).server()
    async with ScriptedServer(answer) as plane, ScriptedServer(tls=tls) as local:
        url = f"{local.url}/ingest"
        endpoint = api.LocalEndpointConfig(url, "site", tls_insecure_skip_verify=True)
        async with running(settings_for(plane.url, local_endpoint=endpoint)):
            await requests(local, 1)
    (request, *_) = local.requests
    assert request.headers["Authorization"] == "Bearer local-token"
    assert len(api.decode_batch(request.body)) > 0
    assert "GET /v1/nodes/node-1/secrets/site" in {
        f"{asked.method} {asked.target}" for asked in plane.requests
    }
    (enabled,) = [r for r in caplog.records if r.getMessage() == "local endpoint enabled"]
    assert enabled.pipeline == "metrics"  # type: ignore[attr-defined]  # set through extra
    assert enabled.url == url  # type: ignore[attr-defined]  # set through extra
    assert "local-token" not in caplog.text


async def test_an_unreachable_control_plane_is_told_at_the_start_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedServer() as gone:
        url = gone.url
    settings = settings_for(url, report_interval=timedelta(hours=1))
    async with running(settings):
        told = await _record(caplog, "control plane not reachable")
    assert told.error == "Connection refused"  # type: ignore[attr-defined]  # set through extra
    assert "api.base_url" in told.hint  # type: ignore[attr-defined]  # set through extra


async def _record(caplog: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    """The first record of ``event``, waited for: a log has no other way to tell."""
    async with asyncio.timeout(20):
        while True:
            for record in caplog.records:
                if record.getMessage() == event:
                    return record
            await asyncio.sleep(0)


async def test_a_control_plane_whose_name_cannot_be_looked_up_is_told_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_for(f"http://{'x' * 64}.example", report_interval=timedelta(hours=1))
    async with running(settings):
        told = await _record(caplog, "control plane not reachable")
    assert "label" in told.error  # type: ignore[attr-defined]  # set through extra


async def test_a_disabled_pipeline_ends_at_once_without_asking_anybody() -> None:
    async with ScriptedServer() as plane:
        await app.run(settings_for(plane.url, enabled=False), IDENTITY)
    assert plane.requests == []


async def test_stopping_flushes_what_was_collected(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedServer() as plane:
        settings = settings_for(plane.url, report_interval=timedelta(hours=1))
        async with running(settings):
            await _record(caplog, "system collected")
            assert plane.requests == []
    (request,) = plane.requests
    assert "system" in {p.group for p in api.decode_batch(gzip.decompress(request.body))}


async def test_one_cycle_tells_points_failures_and_times() -> None:
    report = await one_cycle.collect_once(ALONE)
    assert {point.group for point in report.points} == {"system", "agent"}
    assert report.failures == []
    assert report.elapsed["system"] >= 0.1


async def test_a_source_that_fails_is_named_and_the_others_still_count() -> None:
    settings = replace(ALONE, system=SystemSettings(mount_point="/no/such/place"))
    report = await one_cycle.collect_once(settings)
    assert [point.group for point in report.points] == ["agent"]
    ((group, reason),) = report.failures
    assert group == "system"
    assert "/no/such/place" in reason


async def test_peers_that_are_configured_are_pinged_and_their_tunnels_looked_for() -> None:
    peers = (api.Peer("self", "A" * 43 + "=", "127.0.0.1"),)
    settings = Settings(data_dir=None, peers=peers, wireguard=WireGuardSettings(interface="none0"))
    report = await one_cycle.collect_once(settings)
    assert report.addresses == {"self": "127.0.0.1"}
    (latency,) = [point for point in report.points if point.group == "latency"]
    assert isinstance(latency.data, api.LatencyResult)
    assert latency.data.peer_id == "self"
    assert [group for group, _ in report.failures] == ["tunnel"]
    assert not await app.has_tunnels(settings)


async def test_peers_that_the_control_plane_knows_are_pinged_by_their_names() -> None:
    told = {"id": "told", "public_key": "A" * 43 + "=", "mesh_ip": "127.0.0.1"}
    answer = Reply(body=msgspec.json.encode({"peers": [told]}))
    async with ScriptedServer(answer) as plane:
        settings = replace(settings_for(plane.url), wireguard=WireGuardSettings(interface="none0"))
        report = await one_cycle.collect_once(settings, IDENTITY)

    assert report.addresses == {"told": "127.0.0.1"}
    assert [p.peer_id for p in report.points if p.group == "latency"] == ["told"]


async def test_without_an_answer_the_peers_of_the_enrolment_are_pinged() -> None:
    known = replace_struct(IDENTITY, peers=(api.Peer("known", "A" * 43 + "=", "127.0.0.1"),))
    settings = settings_for("http://127.0.0.1:1")
    settings = replace(settings, wireguard=WireGuardSettings(interface="none0"))

    assert (await one_cycle.collect_once(settings, known)).addresses == {"known": "127.0.0.1"}


async def test_the_reasons_why_pings_failed_are_told_once_each_with_their_peers() -> None:
    pinger = ScriptedPinger({peer: PingError(peer, "no route") for peer in "EIM"})
    collector = metrics.LatencyCollector(pinger, ManualPeers("E", "I", "self", "M"))
    points = [point async for point in collector.collect()]
    (told,) = one_cycle._unanswered(collector)
    assert told == "no round trip to 3 peers: no route"
    assert told in " ".join(collected_table(points, [], {}, {}, [told]).split())


async def test_the_control_plane_is_asked_for_the_peers_of_a_mesh() -> None:
    answer = Reply(body=b'{"peers":[]}')
    async with ScriptedServer(answer) as plane:
        settings = replace(settings_for(plane.url), wireguard=WireGuardSettings(interface="none0"))
        async with running(settings):
            await requests(plane, 2)
    assert "GET /v1/nodes/node-1/state" in {
        f"{asked.method} {asked.target}" for asked in plane.requests
    }
