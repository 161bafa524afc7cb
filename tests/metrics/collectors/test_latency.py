"""The latency collector: concurrency, failures and cancellation."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import LatencyResult
from plexd.metrics import LatencyCollector
from plexd.metrics.testing import ManualClock, ManualPeers, ScriptedPinger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plexd.api import MetricPoint


async def gather(collector: LatencyCollector) -> list[MetricPoint]:
    return [point async for point in collector.collect()]


def rtts(points: list[MetricPoint]) -> dict[str, int]:
    found = {}
    for point in points:
        assert isinstance(point.data, LatencyResult)
        found[point.data.peer_id] = point.data.rtt_nano
    return found


async def test_no_peers_is_no_points() -> None:
    assert await gather(LatencyCollector(ScriptedPinger(), ManualPeers())) == []


async def test_every_peer_is_a_point_in_the_listers_order() -> None:
    clock = ManualClock()
    pinger = ScriptedPinger({"b": 7, "a": 5})
    points = await gather(LatencyCollector(pinger, ManualPeers("b", "a", "c"), clock=clock))
    assert [point.peer_id for point in points] == ["b", "a", "c"]
    assert rtts(points) == {"b": 7, "a": 5, "c": 15_000_000}
    assert {point.timestamp for point in points} == {clock.now()}
    assert {point.group for point in points} == {"latency"}


async def test_a_failed_ping_is_a_value_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pinger = ScriptedPinger({"b": TimeoutError("no answer within 2s")})
    points = await gather(LatencyCollector(pinger, ManualPeers("a", "b", "c")))
    assert rtts(points) == {"a": 15_000_000, "b": -1, "c": 15_000_000}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "latency ping failed"
    assert record.component == "metrics"  # type: ignore[attr-defined]  # set through extra
    assert record.peer_id == "b"  # type: ignore[attr-defined]  # set through extra
    assert record.error == "no answer within 2s"  # type: ignore[attr-defined]  # set through extra


@pytest.mark.parametrize("answer", [None, -5, 1.5, True, "fast"])
async def test_an_answer_that_is_no_round_trip_is_a_failed_ping(answer: object) -> None:
    class Odd:
        async def ping(self, peer_id: str) -> int:
            return answer if peer_id == "a" else 7  # type: ignore[return-value]  # on purpose

    assert rtts(await gather(LatencyCollector(Odd(), ManualPeers("a", "b")))) == {"a": -1, "b": 7}


async def test_a_pinger_that_cancels_itself_has_failed() -> None:
    pinger = ScriptedPinger({"a": asyncio.CancelledError()})
    assert rtts(await gather(LatencyCollector(pinger, ManualPeers("a", "b")))) == {
        "a": -1,
        "b": 15_000_000,
    }


async def test_a_pinger_that_ends_in_more_than_an_error_ends_the_collection() -> None:
    class Grave(BaseException):
        pass

    pinger = ScriptedPinger({"b": Grave()})
    with pytest.raises(BaseExceptionGroup) as ended:
        await gather(LatencyCollector(pinger, ManualPeers("a", "b", "c")))
    assert ended.group_contains(Grave)


async def test_all_peers_are_pinged_at_the_same_time() -> None:
    peers = [f"peer-{i}" for i in range(100)]
    pinger = ScriptedPinger(held=peers)
    collecting = asyncio.ensure_future(gather(LatencyCollector(pinger, ManualPeers(*peers))))
    for _ in range(50):
        await asyncio.sleep(0)
    assert sorted(pinger.under_way) == sorted(peers)
    for peer in peers:
        pinger.release(peer)
    assert [point.peer_id for point in await collecting] == peers


async def test_points_come_as_soon_as_all_before_them_are_known() -> None:
    pinger = ScriptedPinger(held=["b"])
    iterator = LatencyCollector(pinger, ManualPeers("a", "b", "c")).collect()
    assert (await anext(iterator)).peer_id == "a"
    waiting = asyncio.ensure_future(anext(iterator))
    await asyncio.sleep(0)
    assert not waiting.done()
    pinger.release("b")
    assert (await waiting).peer_id == "b"
    assert (await anext(iterator)).peer_id == "c"


async def test_a_cut_collection_keeps_what_was_known_and_leaves_out_the_rest() -> None:
    pinger = ScriptedPinger(held=["b", "d"])
    collector = LatencyCollector(pinger, ManualPeers("a", "b", "c", "d", "e"))
    points: list[MetricPoint] = []

    async def collect() -> None:
        async for point in collector.collect():
            points.append(point)  # noqa: PERF401  # what was there at the cut is the point

    collecting = asyncio.ensure_future(collect())
    for _ in range(20):
        await asyncio.sleep(0)
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert [point.peer_id for point in points] == ["a", "c", "e"]
    assert pinger.under_way == []


async def test_closing_early_ends_the_pings_under_way() -> None:
    pinger = ScriptedPinger(held=["b"])
    iterator = LatencyCollector(pinger, ManualPeers("a", "b")).collect()
    await anext(iterator)
    assert pinger.under_way == ["b"]
    await iterator.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert pinger.under_way == []


async def test_many_failing_peers_share_one_line(caplog: pytest.LogCaptureFixture) -> None:
    peers = [f"peer-{i:03}" for i in range(50)]
    pinger = ScriptedPinger(dict.fromkeys(peers, OSError("unreachable")))
    points = await gather(LatencyCollector(pinger, ManualPeers(*peers)))
    assert set(rtts(points).values()) == {-1}
    assert len(caplog.records) == 21
    assert caplog.records[-1].peers == 30  # type: ignore[attr-defined]  # set through extra


async def test_a_peer_that_keeps_failing_is_logged_once_in_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    collector = LatencyCollector(
        ScriptedPinger({"a": OSError("unreachable")}), ManualPeers("a"), clock=clock
    )
    for _ in range(21):
        await gather(collector)
        await clock.advance(15)
    assert len(caplog.records) == 2
    assert caplog.records[1].suppressed == 19  # type: ignore[attr-defined]  # set through extra


class ChangingPinger:
    """A pinger whose answers are an attribute; a peer without one answers in 15 ms."""

    def __init__(self, answers: Mapping[str, int | Exception]) -> None:
        self.answers = dict(answers)

    async def ping(self, peer_id: str) -> int:
        answer = self.answers.get(peer_id, 15_000_000)
        if isinstance(answer, Exception):
            raise answer
        return answer


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int | None]]:
    """Event, peer and number of peers of each line since the last call."""
    lines = [vars(record) for record in caplog.records]
    caplog.clear()
    return [(line["message"], line["peer_id"], line.get("peers")) for line in lines]


async def test_a_peer_that_answers_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock, pinger = ManualClock(), ChangingPinger({"b": TimeoutError("no answer")})
    collector = LatencyCollector(pinger, ManualPeers("a", "b"), clock=clock)
    await gather(collector)
    assert logged(caplog) == [("latency ping failed", "b", None)]
    pinger.answers["b"] = 7
    for _ in range(2):
        await gather(collector)
    assert logged(caplog) == [("latency ping answered", "b", 1)]


async def test_a_tunnel_that_flaps_is_two_lines_in_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock, pinger = ManualClock(), ChangingPinger({})
    collector = LatencyCollector(pinger, ManualPeers("b"), clock=clock)
    for cycle in range(40):
        pinger.answers["b"] = TimeoutError("no answer") if cycle % 2 == 0 else 7
        await gather(collector)
        await clock.advance(15)
    failed, answered = ("latency ping failed", "b", None), ("latency ping answered", "b", 1)
    assert logged(caplog) == [failed, answered] * 2


async def test_many_peers_that_answer_again_share_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    peers = [f"p{number:02}" for number in range(50)]
    pinger = ChangingPinger(dict.fromkeys(peers, TimeoutError("no answer")))
    lister = ManualPeers(*peers)
    collector = LatencyCollector(pinger, lister)
    await gather(collector)
    logged(caplog)
    pinger.answers.clear()
    lister.peers = peers[1:]  # one has left the mesh
    await gather(collector)
    expected = [("latency ping answered", peer, 1) for peer in peers[1:21]]
    assert logged(caplog) == [*expected, ("latency ping answered", "p21", 29)]


async def test_ten_thousand_peers_that_answer_at_once_need_few_tasks() -> None:
    peers = [f"peer-{i}" for i in range(10_000)]
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(asyncio.Task(work, loop=loop, **options))
        return made[-1]

    loop.set_task_factory(make)  # asking for all tasks at every ping would take minutes
    assert len(await gather(LatencyCollector(ScriptedPinger(), ManualPeers(*peers)))) == 10_000
    assert 0 < len(made) < 10
