"""A disk that is really full: reports are refused, reads still work, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from plexd.api import MetricBatch
from server.running import Client, create_node, running, served
from support.points import AGENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from server.running import Answer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 and "CI" not in os.environ, reason="mounting a file system needs root"
    ),
]

METRICS = "/v1/nodes/n1/metrics"
POINTS = 2000
BODY = MetricBatch([AGENT] * POINTS).to_json()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.slow
async def test_a_full_disk_refuses_reports_keeps_reads_and_doubles_nothing(
    small_disk: Path, session: aiohttp.ClientSession
) -> None:
    data = small_disk / "d"
    token = create_node(data)["auth_token"]
    epoch = secrets.token_hex(16)
    with running(data) as server:
        node = Client(session, server.url, token)

        async def send(seq: int) -> Answer:
            name = f"{epoch};first={(seq - 1) * POINTS + 1};points={POINTS}"
            return await node.post(METRICS, BODY, Plexd_Batch=name, Plexd_After="none;skipped=0")

        assert (await send(1)).status == 200
        ballast = small_disk / "ballast"
        fill(ballast)
        seq = 2
        while (answer := await send(seq)).status == 200:
            seq += 1
        read = await node.get("/v1/nodes/n1/latest")
        health = await node.get("/healthz")
        ballast.unlink()
        async with asyncio.timeout(20):
            while (await node.get("/healthz")).status != 200:
                pass
        again = [await send(seq), await send(seq), await send(1)]
        ledger = (await node.get("/v1/nodes/n1/ledger")).json
        server.process.kill()

    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert (read.status, health.status) == (200, 503)
    assert [(a.status, a.json["duplicate"]) for a in again] == [
        (200, False), (200, True), (200, True)
    ]  # fmt: skip
    assert (ledger["received"], ledger["gap"]) == (seq * POINTS, 0)
    with served(data) as restarted:  # which counts its points and its receipts
        ledger = (await Client(session, restarted.url, token).get("/v1/nodes/n1/ledger")).json
    assert ledger["received"] == seq * POINTS


def fill(path: Path) -> None:
    """Leave no space on the disk."""
    with path.open("wb", buffering=0) as ballast:
        for size in (65536, 4096):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                continue
