"""Nobody gets the id under which points of another node are kept."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock
from plexd_server.errors import StoreError
from plexd_server.registry import Applicant, Registry
from plexd_server.registry.nodes import ids_given
from plexd_server.store import NodeSummary
from plexd_server.upkeep.reserved_ids import _reserve
from server.running import Client, create_node, served
from support.points import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp
    import pytest


class FailingOnce:
    """A store that cannot be read at first."""

    def __init__(self) -> None:
        self.asked = 0

    async def fleet(self) -> list[NodeSummary]:
        self.asked += 1
        if self.asked == 1:
            raise StoreError("not now")
        return [NodeSummary(node_id, ManualClock().now()) for node_id in ("n1", "payroll")]


def enrol(registry: Registry, hostname: str) -> str:
    token, _ = registry.tokens.create(uses=1, expires_in=timedelta(hours=1))
    key = base64.b64encode(os.urandom(32)).decode()
    return registry.enrol(Applicant(token, key, hostname, {})).node_id


def given(registry: Registry) -> set[str]:
    """The ids that no other machine gets."""
    with registry._database.reading() as connection:
        return set(ids_given(connection))


async def test_ids_with_points_are_reserved_also_after_the_store_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, store = ManualClock(), FailingOnce()
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        registry.create_node("n1")
        reserving = asyncio.create_task(_reserve(cast("Any", store), registry, clock))
        await clock.advance(61)
        await reserving

        assert enrol(registry, "n1") == "n1-2"
        assert enrol(registry, "payroll") == "payroll-2"
    assert [record.message for record in caplog.records] == ["ids not reserved"]
    assert store.asked == 2


async def test_a_server_whose_registry_is_new_gives_no_id_away_that_has_points(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d", "payroll")["auth_token"]
    with served(tmp_path / "d") as server:
        node = Client(session, server.url, token)
        assert (await node.post("/v1/nodes/payroll/metrics", EXAMPLE.to_json())).status == 200
    for file in ("registry.db", "master.key"):
        (tmp_path / "d" / file).unlink()

    with (
        served(tmp_path / "d"),
        closing(Registry(tmp_path / "d", clock=SystemClock())) as registry,
    ):
        while "payroll" not in given(registry):  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.05)  # the server has just started
        assert enrol(registry, "payroll") == "payroll-2"
