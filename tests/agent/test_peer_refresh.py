"""The peers, loaded again from the control plane every minute."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plexd.agent.peer_refresh import PeerRefresh
from plexd.api import APIError, Peer
from plexd.metrics.testing import ManualClock
from plexd.wireguard import PeerIndex
from wireguard.messages import key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

A = Peer("a", key(1), "10.0.0.1")
B = Peer("b", key(2), "10.0.0.2")


class ScriptedPeers:
    def __init__(self, *script: list[Peer] | Exception | None) -> None:
        self.script = list(script)

    async def fetch_peers(self, node_id: str) -> list[Peer] | None:
        assert node_id == "node-1"
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(entry, Exception):
            raise entry
        return entry


async def watched(script: ScriptedPeers, *, seconds: float) -> Sequence[str]:
    """The ids that are known after so long."""
    clock, index = ManualClock(), PeerIndex()
    refresh = PeerRefresh(index, script, "node-1", interface="plexd0", clock=clock)
    watching = asyncio.create_task(refresh.run())
    await clock.advance(seconds)
    assert not watching.done()
    watching.cancel()
    await asyncio.wait([watching])
    return index.peer_ids()


async def test_the_peers_are_there_at_once() -> None:
    assert (await watched(ScriptedPeers([A]), seconds=0)) == ("a",)


async def test_a_minute_later_they_are_fetched_again() -> None:
    assert (await watched(ScriptedPeers([A], [A, B]), seconds=60)) == ("a", "b")


async def test_the_known_peers_stay_when_none_can_be_fetched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = ScriptedPeers([A], APIError(503, "later"))
    assert (await watched(script, seconds=150)) == ("a",)
    (record,) = caplog.records
    assert record.getMessage() == "peers not refreshed"
    assert record.error == "api: HTTP 503: later"  # type: ignore[attr-defined]  # set through extra


async def test_peers_that_are_fetched_again_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    later = APIError(503, "later")
    await watched(ScriptedPeers([A], later, later, [A, B]), seconds=330)
    failed, fetched = map(vars, caplog.records)
    assert failed["message"] == "peers not refreshed"
    assert (fetched["message"], fetched["component"], fetched["peers"]) == (
        "peers refreshed",
        "agent",
        2,
    )


async def test_null_is_a_list_of_no_peers() -> None:
    assert (await watched(ScriptedPeers([A], None), seconds=60)) == ()


async def test_a_bad_entry_costs_itself_and_is_named_every_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    evil = Peer("evil", key(3), "fd00::2%x y")
    assert (await watched(ScriptedPeers([A, evil, B]), seconds=330)) == ("a", "b")
    first, second = map(vars, caplog.records)
    assert (first["message"], first["component"], first["count"]) == (
        "peers left out",
        "agent",
        1,
    )
    assert first["error"] == (
        "peer 'evil': mesh_ip \"fd00::2%x y\" has the zone of another interface than the mesh's"
    )
    assert second["suppressed"] == 4


async def test_the_wait_for_the_first_peers_is_two_seconds_at_most() -> None:
    clock, index, asked = ManualClock(), PeerIndex(), asyncio.Event()

    class SilentPlane:
        async def fetch_peers(self, node_id: str) -> list[Peer]:
            del node_id
            await asked.wait()
            return [A]

    watch = PeerRefresh(index, SilentPlane(), "node-1", clock=clock)
    watching = asyncio.create_task(watch.run())
    waiting = asyncio.create_task(watch.wait_for_answer())
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()

    again = asyncio.create_task(watch.wait_for_answer())
    asked.set()
    await clock.advance(0)
    assert (again.done(), index.peer_ids()) == (True, ("a",))
    watching.cancel()
    await asyncio.wait([watching])
