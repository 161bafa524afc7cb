"""What every `MetricReporter` promises: the real ones on a real server, and the shipped fake."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest

from plexd.api import (
    APIError,
    Config,
    ControlPlane,
    LocalEndpointConfig,
    MetricBatch,
    decode_batch,
)
from plexd.metrics import LocalReporter, MetricReporter, MultiReporter
from plexd.metrics.testing import RecordingReporter, ScriptedFetcher
from support.points import AGENT, EXAMPLE, latency_batch, named
from support.servers import Reply, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.tls import Authority

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

NSK = b"0123456789abcdef0123456789abcdef"
NODE = "node-1"


class Destination(Protocol):
    """Where a reporter's batches end up, seen from the other side."""

    def refuse_next(self) -> None: ...
    def hang(self) -> None: ...
    def accept(self) -> None: ...
    async def asked(self) -> None: ...
    def received(self) -> list[MetricBatch]: ...


@dataclass
class Server:
    """A real server behind a reporter that speaks HTTP."""

    server: ScriptedServer
    refused: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def refuse_next(self) -> None:
        self.server.script = [Reply(503, b"down"), Reply()]
        self.refused += 1

    def hang(self) -> None:
        self.server.script = [asyncio.Event()]
        self.server.asked.clear()

    def accept(self) -> None:
        self.server.script = [Reply()]

    async def asked(self) -> None:
        await self.server.next_request()

    def received(self) -> list[MetricBatch]:
        """What it answered with 2xx: the tests refuse first and accept afterwards."""
        bodies = [
            gzip.decompress(request.body)
            if request.headers.get("Content-Encoding") == "gzip"
            else request.body
            for request in self.server.requests[self.refused :]
        ]
        return [decode_batch(body) for body in bodies]


@dataclass
class Memory:
    """The fake, which is its own destination."""

    reporter: RecordingReporter

    def refuse_next(self) -> None:
        self.reporter.failures.append(APIError(503, "down"))

    def hang(self) -> None:
        self.reporter.gate.clear()

    def accept(self) -> None:
        self.reporter.gate.set()

    async def asked(self) -> None:
        before = len(self.reporter.batches)
        while len(self.reporter.attempts) == before:  # noqa: ASYNC110  # the fake has no event
            await asyncio.sleep(0)

    def received(self) -> list[MetricBatch]:
        return [MetricBatch(batch) for batch in self.reporter.batches]


Pair = tuple[MetricReporter, Destination]


async def _control_plane(stack: AsyncExitStack) -> tuple[ControlPlane, Server]:
    server = await stack.enter_async_context(ScriptedServer())
    plane = await stack.enter_async_context(ControlPlane(Config(server.url, auth_token="token")))
    return plane, Server(server)


async def _local(stack: AsyncExitStack, authority: Authority) -> tuple[LocalReporter, Server]:
    server = await stack.enter_async_context(ScriptedServer(tls=authority.server()))
    config = LocalEndpointConfig(server.url + "/ingest", "key")
    fetcher = ScriptedFetcher(NSK, {"key": "token"})
    reporter = await stack.enter_async_context(LocalReporter(config, fetcher, NSK, NODE))
    return reporter, Server(server)


@pytest.fixture(params=["ControlPlane", "LocalReporter", "MultiReporter", "RecordingReporter"])
async def pair(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        made: Pair
        if request.param == "ControlPlane":
            made = await _control_plane(stack)
        elif request.param == "LocalReporter":
            made = await _local(stack, authority)
        elif request.param == "MultiReporter":
            platform, server = await _control_plane(stack)
            local, _ = await _local(stack, authority)
            made = await stack.enter_async_context(MultiReporter(platform, local)), server
        else:
            fake = RecordingReporter()
            made = fake, Memory(fake)
        yield made


def test_it_satisfies_the_port(pair: Pair) -> None:
    assert isinstance(pair[0], MetricReporter)


@pytest.mark.parametrize(
    "batch", [MetricBatch([*EXAMPLE, AGENT]), latency_batch(100), MetricBatch([])], ids=len
)
async def test_what_was_reported_has_arrived_when_it_returns(
    pair: Pair, batch: MetricBatch
) -> None:
    reporter, destination = pair
    assert await reporter.report_metrics(NODE, batch) is None
    assert destination.received() == [batch]


async def test_a_named_batch_arrives_with_the_same_points(pair: Pair) -> None:
    reporter, destination = pair
    await reporter.report_metrics(NODE, named(EXAMPLE, 3, dropped=2))
    assert [list(batch) for batch in destination.received()] == [list(EXAMPLE)]


async def test_a_batch_that_is_not_accepted_is_an_exception_and_the_next_one_works(
    pair: Pair,
) -> None:
    reporter, destination = pair
    destination.refuse_next()
    with pytest.raises(APIError, match="HTTP 503: down"):
        await reporter.report_metrics(NODE, EXAMPLE)
    assert destination.received() == []
    await reporter.report_metrics(NODE, EXAMPLE)
    assert destination.received() == [EXAMPLE]


async def test_batches_arrive_in_the_order_of_their_reports(pair: Pair) -> None:
    reporter, destination = pair
    batches = [latency_batch(count) for count in range(1, 6)]
    for batch in batches:
        await reporter.report_metrics(NODE, batch)
    assert destination.received() == batches


async def test_concurrent_reports_all_arrive(pair: Pair) -> None:
    reporter, destination = pair
    batches = [latency_batch(count) for count in range(1, 11)]
    await asyncio.gather(*[reporter.report_metrics(NODE, batch) for batch in batches])
    assert sorted(map(len, destination.received())) == list(range(1, 11))


async def test_a_cancelled_report_ends_and_leaves_the_reporter_usable(pair: Pair) -> None:
    reporter, destination = pair
    destination.hang()
    report = asyncio.create_task(reporter.report_metrics(NODE, EXAMPLE))
    await destination.asked()
    assert not report.done()
    report.cancel()
    with pytest.raises(asyncio.CancelledError):
        await report
    destination.accept()
    await reporter.report_metrics(NODE, latency_batch(7))
    assert destination.received()[-1] == latency_batch(7)


async def test_reporting_does_not_change_the_batch(pair: Pair) -> None:
    reporter, _ = pair
    batch = named(EXAMPLE, 3, dropped=2)
    body = batch.to_json()
    await reporter.report_metrics(NODE, batch)
    assert batch == named(EXAMPLE, 3, dropped=2)
    assert batch.to_json() is body
