"""The application itself, called as an ASGI server calls it, with parts that fail on purpose."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from plexd.clock import SystemClock
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.errors import StoreBusy, StoreError
from plexd_server.mesh import LiveMesh
from plexd_server.registry import Registry
from plexd_server.routes.health import Health
from support.points import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

    from plexd_server.store import (
        Ledger,
        NodeSummary,
        Report,
        Series,
        SeriesQuery,
        StoredPoint,
        Written,
    )

METRICS = "/v1/nodes/n1/metrics"


class FaultyStore:
    """Raises the same error from every method, and counts the points it was asked to write."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.written = 0

    async def write(self, delivery: Report) -> Written:
        self.written += len(delivery.points)
        raise self.error

    async def ledger(self, node_id: str) -> Ledger:  # noqa: ARG002 -- the port's
        raise self.error

    async def latest(self, node_id: str) -> list[StoredPoint]:  # noqa: ARG002 -- the port's
        raise self.error

    async def series(self, query: SeriesQuery) -> Series:  # noqa: ARG002 -- the port's
        raise self.error

    async def fleet(self) -> list[NodeSummary]:
        raise self.error

    async def expire(
        self, now: datetime, keep: timedelta, keep_rollups: timedelta | None = None
    ) -> int:
        del now, keep, keep_rollups
        raise self.error

    async def check(self) -> None:
        raise self.error

    async def aclose(self) -> None:
        return None


class CountingStore(FaultyStore):
    """Works, and counts how often it was checked."""

    def __init__(self) -> None:
        super().__init__(StoreError("never raised"))
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1


class Watch(SystemClock):
    """Shows the seconds it was set to."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class HastyClock(SystemClock):
    """Every deadline has passed already."""

    def timeout(self, seconds: float) -> asyncio.Timeout:
        return asyncio.timeout(0 * seconds)


class Plane:
    """An application with one node, which gets its messages one by one."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.token = registry.create_node("n1").auth_token
        self.store = FaultyStore(StoreError("the disk is full"))
        self.clock = SystemClock()

    async def ask(self, method: str, path: str, *messages: dict[str, Any]) -> tuple[int, Any, Any]:
        """Status, headers and JSON of the answer; after ``messages`` the sender stays silent."""
        key = OperatorKey.of("x" * 32)
        app = build_app(self.store, LiveMesh(), self.registry, key, port=1, clock=self.clock)
        waiting, sent = list(messages), list[Any]()

        async def receive() -> Any:
            return waiting.pop(0) if waiting else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = _scope(method, path, self.token)
        await app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], headers, json.loads(body)


def _scope(method: str, path: str, token: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"localhost"),
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }


def chunk(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    registry = Registry(tmp_path, clock=SystemClock())
    yield Plane(registry)
    registry.close()


@pytest.mark.parametrize("error", [StoreBusy("too much is waiting"), StoreError("disk full")])
async def test_a_store_that_cannot_write_is_503_and_says_when_to_come_back(
    plane: Plane, error: Exception
) -> None:
    plane.store.error = error

    status, headers, problem = await plane.ask("POST", METRICS, chunk(EXAMPLE.to_json()))

    assert (status, problem["detail"]) == (503, str(error))
    assert int(headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/healthz", "/v1/nodes/n1/latest"])
async def test_a_store_that_cannot_read_is_503(plane: Plane, path: str) -> None:
    assert (await plane.ask("GET", path))[0] == 503


async def test_a_working_store_is_checked_once_a_second_however_many_ask() -> None:
    clock, store = Watch(), CountingStore()
    health = Health(store, clock)

    await asyncio.gather(*(health.check() for _ in range(50)))
    assert store.checks == 1

    clock.seconds = 1
    await health.check()
    assert store.checks == 2


async def test_an_unexpected_error_is_500_without_details_and_is_logged(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.store.error = ZeroDivisionError("a secret of the inside")

    status, _, problem = await plane.ask("POST", METRICS, chunk(EXAMPLE.to_json()))

    assert status == 500
    assert "secret" not in problem["detail"]
    assert [record.message for record in caplog.records] == ["request failed"]
    assert plane.token not in caplog.text


async def test_a_body_that_takes_too_long_is_408(plane: Plane) -> None:
    plane.clock = HastyClock()

    status, _, _ = await plane.ask("POST", METRICS, chunk(b"[", more=True))

    assert status == 408
    assert plane.store.written == 0


@pytest.mark.parametrize("sent", [b"[]", EXAMPLE.to_json()], ids=["empty", "whole"])
async def test_a_body_whose_sender_went_away_is_not_stored_even_if_it_parses(
    plane: Plane, sent: bytes
) -> None:
    gone = {"type": "http.disconnect"}

    status, _, _ = await plane.ask("POST", METRICS, chunk(sent, more=True), gone)

    assert status == 408
    assert plane.store.written == 0


async def test_nothing_of_the_body_is_read_before_the_token_is_known(plane: Plane) -> None:
    plane.token = "unknown"

    status, _, _ = await plane.ask("POST", METRICS)  # a read would wait for ever

    assert status == 401
