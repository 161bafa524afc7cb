"""What every `Pinger` promises, the real one and each that is shipped.

``peer-1`` and ``peer-2`` answer, ``late`` does not at once, ``nobody`` never.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT
from plexd.icmp import ICMPPinger
from plexd.metrics import Pinger
from plexd.metrics.testing import ScriptedPinger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("nothing_leaks")

ADDRESSES = {"peer-1": "127.0.0.1", "peer-2": "127.0.0.2", "late": "127.0.0.3"}
NO_ANSWER = OSError("no answer")


@pytest.fixture(params=[pytest.param("ICMPPinger", marks=ROOT), "ScriptedPinger"])
async def pinger(request: pytest.FixtureRequest) -> AsyncIterator[Pinger]:
    async with AsyncExitStack() as stack:
        if request.param == "ICMPPinger":
            yield await stack.enter_async_context(ICMPPinger(ADDRESSES.__getitem__))
        else:
            yield ScriptedPinger({"nobody": NO_ANSWER}, held=["late"])


def test_it_satisfies_the_port(pinger: Pinger) -> None:
    assert isinstance(pinger, Pinger)


async def test_a_round_trip_is_a_whole_number_above_nothing(pinger: Pinger) -> None:
    for _ in range(5):
        rtt = await pinger.ping("peer-1")
        assert type(rtt) is int
        assert rtt > 0


async def test_any_number_of_pings_may_be_under_way(pinger: Pinger) -> None:
    peers = ["peer-1", "peer-2"] * 50
    assert min(await asyncio.gather(*[pinger.ping(peer) for peer in peers])) > 0


async def test_a_failure_raises_and_the_next_ping_works(pinger: Pinger) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="no "):
            await pinger.ping("nobody")
        assert await pinger.ping("peer-1") > 0


async def test_one_that_fails_does_not_fail_the_others(pinger: Pinger) -> None:
    peers = ["peer-1", "nobody", "peer-2"]
    first, failed, last = await asyncio.gather(
        *[pinger.ping(peer) for peer in peers], return_exceptions=True
    )
    assert isinstance(first, int)
    assert isinstance(failed, Exception)
    assert isinstance(last, int)


async def test_a_cancelled_ping_ends_and_the_next_one_works(pinger: Pinger) -> None:
    ping = asyncio.create_task(pinger.ping("late"))
    await asyncio.sleep(0)  # it is under way, or a cancellation would show nothing
    assert not ping.done()
    ping.cancel()
    await asyncio.wait([ping])
    assert ping.cancelled()
    assert await pinger.ping("peer-1") > 0
