"""A whole cycle over five hundred peers of another machine."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT
from plexd.clock import SystemClock
from plexd.icmp import ICMPPinger
from plexd.metrics import LatencyCollector
from plexd.metrics.collection import Collection
from plexd.metrics.testing import ManualPeers

if TYPE_CHECKING:
    from icmp.conftest import Pair

pytestmark = [*ROOT, pytest.mark.usefixtures("nothing_leaks")]

INTERVAL_SECONDS = 15
FIRST = ipaddress.ip_address("10.80.0.1")
PEERS = [str(FIRST + number) for number in range(500)]


def itself(peer_id: str) -> str:
    return peer_id


@pytest.fixture
def five_hundred(pair: Pair) -> None:
    """All of them are the far end."""
    pair.near.run("ip", "route", "add", "10.80.0.0/16", "via", "10.77.0.2")
    pair.far.run("ip", "route", "add", "local", "10.80.0.0/16", "dev", "lo")


@pytest.mark.usefixtures("five_hundred")
async def test_five_hundred_peers_are_known_before_the_interval_is_over() -> None:
    async with ICMPPinger(itself) as pinger:
        collection = Collection(LatencyCollector(pinger, ManualPeers(*PEERS)), SystemClock())
        await collection.run(INTERVAL_SECONDS)
        points, rejected = await collection.points()
        assert collection.error is None
        assert ([point.peer_id for point in points], rejected) == (PEERS, 0)
        seen = pinger.statistics()
        assert (seen.sent, seen.answered, seen.receive_drops) == (500, 500, 0)


@pytest.mark.slow
async def test_five_hundred_silent_peers_do_not_hold_up_the_cycle(silent: Pair) -> None:
    silent.near.run("ip", "route", "add", "10.80.0.0/16", "via", "10.77.0.2")
    silent.far.run("ip", "route", "add", "local", "10.80.0.0/16", "dev", "lo")
    async with ICMPPinger(itself) as pinger:
        collector = LatencyCollector(pinger, ManualPeers(*PEERS))
        async with asyncio.timeout(INTERVAL_SECONDS):
            points = [point async for point in collector.collect()]
        assert [point.peer_id for point in points] == PEERS
        assert pinger.statistics().lost == 500
