"""A canary in every secret the agent holds, and every place it writes to searched for it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from plexd import api, metrics
from plexd.agent import app
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.identity import Identity
from plexd.logs import LogfmtFormatter
from plexd.nodeapi import seal_secret
from support.servers import ScriptedServer
from support.tls import Authority

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NSK = "nsk-canary-0123456789abcdef01234"
IDENTITY = Identity("node-1", "", NSK, "token-canary")


async def test_no_secret_reaches_the_log_the_spool_or_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ciphertext, nonce = seal_secret(NSK.encode(), "local-canary")
    sealed = msgspec.json.encode(api.SecretResponse("name-canary", ciphertext, nonce, 1))
    posts: list[str] = []

    async def repeat_everything(request: web.BaseRequest) -> web.StreamResponse:
        """A server that is broken in the worst way: its answer repeats the request."""
        request_headers = str(dict(request.headers))
        if "/secrets/" in request.path:
            return web.Response(body=sealed)
        if request.method == "GET":
            return web.Response(status=500, text=request_headers)
        posts.append(request.headers["Authorization"])
        return web.Response(status=(500, 401, 413, 404)[(len(posts) - 1) % 4], text=request_headers)

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=403, text=str(dict(request.headers)))

    def read_token() -> str:
        return f"newer-canary-{len(posts)}"

    spool_dir = tmp_path / "data"
    spool_dir.mkdir()
    tls = Authority.make(tmp_path).server()
    async with ScriptedServer(repeat_everything) as plane, ScriptedServer(refuse, tls=tls) as local:
        settings = Settings(
            data_dir=spool_dir,
            api=api.Config(plane.url, auth_token=IDENTITY.auth_token),
            wireguard=WireGuardSettings(interface=""),
            metrics=metrics.Config(
                collect_interval=timedelta(milliseconds=300),
                report_interval=timedelta(milliseconds=30),
                local_endpoint=api.LocalEndpointConfig(
                    local.url, "name-canary", tls_insecure_skip_verify=True
                ),
            ),
        )
        agent = asyncio.create_task(app.run(settings, IDENTITY, read_token))
        async with asyncio.timeout(20):
            while len(posts) < 4 or not local.requests:
                plane.asked.clear()
                await plane.asked.wait()
        agent.cancel()
        outcome = await asyncio.gather(agent, return_exceptions=True)
    own = [record for record in caplog.records if not record.name.startswith("aiohttp.access")]
    assert any(record.getMessage() == "metrics report failed" for record in own)
    formatter = LogfmtFormatter()
    written = [formatter.format(record) + str(vars(record)) for record in own]
    written += [repr(settings), repr(IDENTITY)]
    written += ["".join(traceback.format_exception(error)) for error in outcome if error]
    assert not [text for text in written if "canary" in text]
    kept = {path: path.read_bytes() for path in spool_dir.rglob("*") if path.is_file()}
    assert kept
    assert not [path for path, content in kept.items() if b"canary" in content]
