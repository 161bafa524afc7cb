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

from plexd import api, metrics
from plexd.agent import app
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.identity import Identity
from plexd.nodeapi import seal_secret
from support.connect_proxy import ConnectProxy
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


# A node without a mesh: this machine's tunnels are tested elsewhere.
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


async def test_an_unreachable_control_plane_is_logged_at_the_start_with_a_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedServer() as gone:
        url = gone.url
    settings = settings_for(url, report_interval=timedelta(hours=1))
    async with running(settings):
        record = await _record(caplog, "control plane not reachable")
    assert record.error == "Connection refused"  # type: ignore[attr-defined]  # set through extra
    assert "api.base_url" in record.hint  # type: ignore[attr-defined]  # set through extra


async def _record(caplog: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    """Wait for the first record of ``event``; a log has no way to notify."""
    async with asyncio.timeout(20):
        while True:
            for record in caplog.records:
                if record.getMessage() == event:
                    return record
            await asyncio.sleep(0)


async def test_a_control_plane_whose_name_cannot_be_looked_up_is_logged_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_for(f"http://{'x' * 64}.example", report_interval=timedelta(hours=1))
    async with running(settings):
        record = await _record(caplog, "control plane not reachable")
    assert "label" in record.error  # type: ignore[attr-defined]  # set through extra


async def test_a_control_plane_behind_a_proxy_is_reached_by_way_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedServer() as plane, ConnectProxy("u:canary") as proxy:
        settings = settings_for(plane.url)
        gone = proxy.url
        url = gone.replace("http://", "http://u:canary@")
        async with running(replace(settings, api=replace(settings.api, proxy=url))):
            await requests(plane, 1)
        assert proxy.heads
    hourly = settings_for(plane.url, report_interval=timedelta(hours=1))
    async with running(replace(hourly, api=replace(hourly.api, proxy=url))):
        record = await _record(caplog, "control plane not reachable")
    assert record.error == f"the proxy {gone}: Connection refused"  # type: ignore[attr-defined]  # set through extra
    assert not [found for found in caplog.records if "canary" in str(vars(found))]


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


async def test_the_control_plane_is_asked_for_the_peers_of_a_mesh() -> None:
    answer = Reply(body=b'{"peers":[]}')
    async with ScriptedServer(answer) as plane:
        settings = replace(settings_for(plane.url), wireguard=WireGuardSettings(interface="none0"))
        async with running(settings):
            await requests(plane, 2)
    assert "GET /v1/nodes/node-1/state" in {
        f"{asked.method} {asked.target}" for asked in plane.requests
    }
