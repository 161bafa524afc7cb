"""Many peers at once, all of them this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT, Namespace
from plexd.icmp import ICMPPinger
from plexd.icmp.packet import encode_echo
from plexd.metrics import LatencyCollector
from plexd.metrics.testing import ManualPeers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [*ROOT, pytest.mark.usefixtures("nothing_leaks")]

FIRST = ipaddress.ip_address("127.1.0.1")
PEERS = [str(FIRST + number) for number in range(10_000)]


def itself(peer_id: str) -> str:
    return peer_id


@pytest.fixture
def quiet() -> Iterator[None]:
    """A loopback of the test's own."""
    with Namespace() as place, place.inside():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
async def test_ten_thousand_peers_pinged_together_all_answer() -> None:
    async with ICMPPinger(itself) as pinger:
        rtts = await asyncio.gather(*[pinger.ping(peer) for peer in PEERS])
        assert min(rtts) > 0
        seen = pinger.statistics()
        assert (seen.sent, seen.answered, seen.lost) == (10_000, 10_000, 0)
        assert (seen.receive_drops, seen.duplicates, seen.foreign) == (0, 0, 0)
        assert seen.largest_read_delay_nano > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
async def test_ten_thousand_peers_are_collected_cycle_after_cycle() -> None:
    async with ICMPPinger(itself) as pinger:
        collector = LatencyCollector(pinger, ManualPeers(*PEERS))
        for _ in range(2):
            points = [point async for point in collector.collect()]
            assert [point.peer_id for point in points] == PEERS
        assert pinger.statistics().answered == 20_000
        assert {pinger.loss(peer) for peer in PEERS} == {-1.0}  # two pings say nothing


@pytest.mark.usefixtures("quiet")
async def test_a_prompt_answer_is_read_at_once_although_others_lie_before_it() -> None:
    async with ICMPPinger(itself) as pinger:
        for _ in range(2):  # the second one knows that answers are prompt
            await pinger.ping("127.0.0.1")
        echo = pinger._channels[socket.AF_INET]._echo
        unasked = encode_echo(echo.request, echo.identifier, 0, echo.cookie + bytes(12))
        for _ in range(3):
            echo.sock.sendto(unasked, ("127.0.0.1", 0))
        with pytest.raises(StopIteration):
            pinger.ping("127.0.0.1").send(None)
        assert pinger.statistics().foreign == 3


async def test_a_loop_that_is_busy_does_not_lengthen_round_trips() -> None:
    async with ICMPPinger(itself) as pinger:
        ping = asyncio.create_task(pinger.ping("127.0.0.1"))
        await asyncio.sleep(0)  # the probe is out
        _keep_busy()
        assert await ping < 20_000_000
        assert pinger.statistics().largest_read_delay_nano > 50_000_000


def _keep_busy() -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.1
    while loop.time() < end:
        pass


async def test_both_families_are_under_way_together() -> None:
    async with ICMPPinger(itself) as pinger:
        assert min(await asyncio.gather(pinger.ping("127.0.0.1"), pinger.ping("::1"))) > 0
