"""The peers, loaded again from the control plane every minute."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plexd.agent.peer_refresh import PeerRefresh
from plexd.api import APIError, Peer
from plexd.metrics.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

A = Peer("a", "key-a", "10.0.0.1")
B = Peer("b", "key-b", "10.0.0.2")


class ScriptedPeers:
    def __init__(self, *script: list[Peer] | Exception) -> None:
        self.script = list(script)

    async def fetch_peers(self, node_id: str) -> list[Peer]:
        assert node_id == "node-1"
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(entry, Exception):
            raise entry
        return entry


class ManualStore:
    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def load(self, peers: Sequence[Peer]) -> None:
        if any(not peer.id for peer in peers):
            raise ValueError("a peer without an id")
        self.peers = list(peers)


async def watched(script: ScriptedPeers, *, seconds: float) -> ManualStore:
    clock, store = ManualClock(), ManualStore()
    watching = asyncio.create_task(PeerRefresh(store, script, "node-1", clock=clock).run())
    await clock.advance(seconds)
    assert not watching.done()
    watching.cancel()
    await asyncio.wait([watching])
    return store


async def test_the_peers_are_there_at_once() -> None:
    assert (await watched(ScriptedPeers([A]), seconds=0)).peers == [A]


async def test_a_minute_later_they_are_fetched_again() -> None:
    assert (await watched(ScriptedPeers([A], [A, B]), seconds=60)).peers == [A, B]


async def test_the_known_peers_stay_when_none_can_be_fetched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = ScriptedPeers([A], APIError(503, "later"))
    assert (await watched(script, seconds=150)).peers == [A]
    (record,) = caplog.records
    assert record.getMessage() == "peers not refreshed"
    assert record.error == "api: HTTP 503: later"  # type: ignore[attr-defined]  # set through extra


async def test_peers_that_are_not_valid_are_refused_as_a_whole() -> None:
    script = ScriptedPeers([A], [B, Peer("", "key", "10.0.0.3")])
    assert (await watched(script, seconds=60)).peers == [A]


async def test_the_wait_for_the_first_peers_is_two_seconds_at_most() -> None:
    clock, store, asked = ManualClock(), ManualStore(), asyncio.Event()

    class SilentPlane:
        async def fetch_peers(self, node_id: str) -> list[Peer]:
            del node_id
            await asked.wait()
            return [A]

    watch = PeerRefresh(store, SilentPlane(), "node-1", clock=clock)
    watching = asyncio.create_task(watch.run())
    waiting = asyncio.create_task(watch.wait_for_answer())
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()

    again = asyncio.create_task(watch.wait_for_answer())
    asked.set()
    await clock.advance(0)
    assert (again.done(), store.peers) == (True, [A])
    watching.cancel()
    await asyncio.wait([watching])
