"""A hundred thousand answers to one question."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT
from icmp.responder import Responder, until
from plexd.icmp import ICMPPinger
from plexd.icmp.packet import COOKIE_BYTES, PAYLOAD_BYTES, REPLY_V4, encode_echo

if TYPE_CHECKING:
    from icmp.conftest import Pair
    from icmp.responder import Request

pytestmark = [*ROOT, pytest.mark.usefixtures("nothing_leaks")]

FAR = "10.77.0.2"
EACH = 25_000
AT_ONCE = 500


def itself(peer_id: str) -> str:
    return peer_id


async def blast(responder: Responder, asked: Request, **changes: int | bytes) -> None:
    """Send `EACH` answers to ``asked``, those of a request that differs in ``changes``."""
    echo = {
        "identifier": asked.identifier,
        "sequence": asked.sequence,
        "payload": asked.payload,
        **changes,
    }
    packet = encode_echo(REPLY_V4, **echo)  # type: ignore[arg-type]  # one type for all values
    for _ in range(EACH // AT_ONCE):
        for _ in range(AT_ONCE):
            responder.send(packet, asked)
        await asyncio.sleep(0)  # the pinger reads meanwhile, as much as it wants


async def test_only_one_of_a_hundred_thousand_answers_counts(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    timeout = timedelta(days=1)
    async with responder, ICMPPinger(itself, timeout=timeout) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        cookie = asked.payload[:COOKIE_BYTES]
        await blast(responder, asked, identifier=asked.identifier ^ 1)
        await blast(responder, asked, sequence=asked.sequence ^ 1)
        await blast(responder, asked, payload=cookie + bytes(PAYLOAD_BYTES - COOKIE_BYTES))
        # What has a foreign identifier is turned away by the kernel and never seen.
        await until(lambda: _turned_away(pinger) == 2 * EACH)
        assert not ping.done()
        assert pinger.loss(FAR) == -1
        await blast(responder, asked)
        assert await ping > 0
        await until(lambda: _turned_away(pinger) == 3 * EACH - 1)
        seen = pinger.statistics()
        assert (seen.sent, seen.answered, seen.lost, seen.late) == (1, 1, 0, 0)
        assert seen.duplicates > 0


def _turned_away(pinger: ICMPPinger) -> int:
    """What was seen and not counted, and what did not find room in the queue, which is bounded."""
    seen = pinger.statistics()
    return seen.foreign + seen.duplicates + seen.receive_drops


async def test_the_next_ping_after_a_storm_is_answered(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=timedelta(days=1)) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        responder.reply(asked)
        assert await ping > 0
        await blast(responder, asked)
        again = asyncio.create_task(pinger.ping(FAR))
        next_asked = await responder.request()
        responder.reply(asked)
        assert not again.done()
        await until(lambda: _turned_away(pinger) == EACH + 1)  # the queue has room again
        responder.reply(next_asked)
        assert await again > 0
        assert pinger.statistics().lost == 0
