"""The wire between agent and control plane fails at every byte; the oracle keeps the account."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from faults.numbered import account, point_of
from plexd import api
from support.oracle import Answer, Oracle
from support.points import EPOCH
from support.proxy import CLEAN, FaultProxy, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODE = "node-1"
SIZE = 3


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle() as found:
        yield found
        assert not found.contradictions


def batch(number: int) -> api.MetricBatch:
    points = [point_of(SIZE * number + i) for i in range(SIZE)]
    return api.MetricBatch(points, name=api.BatchName(EPOCH, 1 + number * SIZE, SIZE))


def config(proxy: FaultProxy, seconds: float = 5.0) -> api.Config:
    return api.Config(proxy.url, request_timeout=timedelta(seconds=seconds))


def only(connection: int, weather: Weather) -> Callable[[int], Weather]:
    return lambda number: weather if number == connection else CLEAN


async def deliver(proxy: FaultProxy, number: int, *, seconds: float = 5.0) -> int:
    """Report until it is accepted; how many attempts it took."""
    for attempt in range(1, 5):
        async with api.ControlPlane(config(proxy, seconds)) as plane:
            with suppress(api.TransportError, api.APIError):
                await plane.report_metrics(NODE, batch(number))
                return attempt
    raise AssertionError(f"batch {number} was not accepted")


@pytest.mark.parametrize("direction", ["request", "answer"])
async def test_a_reset_at_any_byte_neither_loses_nor_doubles(
    oracle: Oracle, direction: str
) -> None:
    """Every connection with an even number is cut, one byte later each time."""
    cut_at: Callable[[int], Weather] = (
        (lambda at: Weather(cut_request_at=at))
        if direction == "request"
        else (lambda at: Weather(cut_answer_at=at))
    )
    async with FaultProxy(oracle.port) as proxy:
        assert await deliver(proxy, 0) == 1
        whole = proxy.forwarded if direction == "request" else proxy.returned
        assert whole > 100
        for position in range(whole):
            proxy.forecast = only(proxy.connections, cut_at(position))
            # An answer that is cut behind its status line and headers may be one already.
            assert await deliver(proxy, position + 1) <= 2
        found = account(range((whole + 1) * SIZE), oracle.points(NODE))
    assert found.is_exact, found
    assert oracle.lost(NODE) == 0


@pytest.mark.parametrize(
    "weather",
    [
        Weather(blackhole=True),
        Weather(latency=0.5),
        Weather(bytes_per_second=1),
        Weather(corrupt_answer_at=0),
        Weather(duplicate=True),
    ],
    ids=["blackhole", "late", "slow", "corrupt", "duplicate"],
)
async def test_in_bad_weather_a_report_is_late_but_counted_once(
    oracle: Oracle, weather: Weather
) -> None:
    async with FaultProxy(oracle.port, lambda n: weather if n == 0 else CLEAN) as proxy:
        await deliver(proxy, 0, seconds=0.3)
        assert await deliver(proxy, 1) == 1
        await asyncio.to_thread(oracle.wait_until, lambda: len(oracle.points(NODE)) == 2 * SIZE)
    found = account(range(2 * SIZE), oracle.points(NODE))
    assert found.is_exact, found


async def test_a_report_that_the_network_repeats_has_one_effect(oracle: Oracle) -> None:
    async with FaultProxy(oracle.port, lambda _: Weather(duplicate=True)) as proxy:
        assert await deliver(proxy, 0) == 1
        await asyncio.to_thread(oracle.wait_until, lambda: oracle.duplicates(NODE) == 1)
    assert account(range(SIZE), oracle.points(NODE)).is_exact


@pytest.mark.parametrize("cut_at", range(0, 40, 3))
async def test_an_answer_that_never_arrives_is_asked_for_again(oracle: Oracle, cut_at: int) -> None:
    oracle.answers = lambda report: Answer(cut_at=cut_at if report.attempt == 1 else None)
    async with FaultProxy(oracle.port) as proxy:
        await deliver(proxy, 0)
    assert account(range(SIZE), oracle.points(NODE)).is_exact
    assert oracle.duplicates(NODE) == oracle.attempts - 1
