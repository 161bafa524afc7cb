"""Pings through networks that work, half work and do not work."""

from __future__ import annotations

import asyncio
import socket
import struct
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT, Namespace, as_nobody, cable
from icmp.responder import Responder, until
from plexd.icmp import ICMPPinger, NoAnswerError, PingError, SocketError, UndeliveredError
from plexd.icmp.packet import REPLY_V4, REQUEST_V4, checksum, encode_echo
from plexd.metrics.testing import ManualClock

if TYPE_CHECKING:
    from icmp.conftest import Pair

pytestmark = [*ROOT, pytest.mark.usefixtures("nothing_leaks")]

FAR = "10.77.0.2"
# Neighbours that just got IPv6 take a second or two to meet, and a machine may be busy.
PATIENT = timedelta(seconds=20)
ANYONE = "0 2147483647"


def itself(peer_id: str) -> str:
    return peer_id


def allow_datagram_sockets(place: Namespace) -> None:
    place.run("sysctl", "-qw", f"net.ipv4.ping_group_range={ANYONE}")


@pytest.mark.slow
@pytest.mark.parametrize("address", [FAR, "fd77::2", "fd77:0:0::0002"])
@pytest.mark.parametrize("kind", ["raw", "datagram"])
async def test_a_peer_answers(pair: Pair, address: str, kind: str) -> None:
    if kind == "datagram":
        allow_datagram_sockets(pair.near)
    async with ICMPPinger(itself, timeout=PATIENT) as pinger:
        for _ in range(8):
            assert 0 < await pinger.ping(address) < 20_000_000_000
        assert pinger.loss(address) == 0
        assert pinger.statistics().answered == 8


async def test_a_user_without_rights_pings_through_datagram_sockets(pair: Pair) -> None:
    allow_datagram_sockets(pair.near)
    with as_nobody():
        async with ICMPPinger(itself, timeout=PATIENT) as pinger:
            assert await pinger.ping(FAR) > 0
            assert await pinger.ping("fd77::2") > 0


@pytest.mark.parametrize("address", [FAR, "fd77::2"])
async def test_without_any_right_the_error_says_what_to_do(pair: Pair, address: str) -> None:
    pair.near.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0")
    with as_nobody():
        async with ICMPPinger(itself) as pinger:
            with pytest.raises(SocketError, match=r"ping_group_range.*setcap cap_net_raw"):
                await pinger.ping(address)
            assert pinger.loss(address) == -1


@pytest.mark.parametrize("address", [FAR, "fd77::2"])
async def test_blocked_icmp_is_all_lost_and_does_not_hang(pair: Pair, address: str) -> None:
    pair.far.rules("input", "icmp type echo-request drop", "icmpv6 type echo-request drop")
    async with ICMPPinger(itself, timeout=timedelta(seconds=0.05)) as pinger:
        pings = [pinger.ping(address) for _ in range(20)]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NoAnswerError}
        assert str(answers[0]) == f"{address}: no answer within 0.05 s"
        assert pinger.loss(address) == 100


@pytest.mark.slow
@pytest.mark.parametrize("address", [FAR, "fd77::2"])
@pytest.mark.parametrize("kind", ["raw", "datagram"])
async def test_an_unreachable_peer_fails_at_once_and_names_the_reporter(
    pair: Pair, address: str, kind: str
) -> None:
    if kind == "datagram":
        allow_datagram_sockets(pair.near)
    pair.far.rules(
        "input",
        f"ip daddr {FAR} reject with icmp type host-unreachable",
        "icmpv6 type echo-request reject with icmpv6 type no-route",
    )
    async with ICMPPinger(itself, timeout=timedelta(days=1)) as pinger:
        for _ in range(3):
            with pytest.raises(UndeliveredError, match=f"reported by {address}"):
                await pinger.ping(address)
        assert pinger.statistics().lost == 3


async def test_one_unreachable_peer_is_not_another_peers_failure(pair: Pair) -> None:
    pair.far.run("ip", "address", "add", "10.77.0.3/32", "dev", "lo")
    pair.far.rules("input", "ip daddr 10.77.0.3 reject with icmp type host-unreachable")
    async with ICMPPinger(itself, timeout=timedelta(seconds=0.5)) as pinger:
        pings = [pinger.ping(peer) for _ in range(50) for peer in ("10.77.0.3", FAR)]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        assert pinger.loss(FAR) == 0
        assert pinger.loss("10.77.0.3") == 100
        assert all(isinstance(answer, int) for answer in answers[1::2])


async def test_exceeded_time_to_live_fails_at_once(pair: Pair) -> None:
    with Namespace() as beyond:
        cable(pair.far, beyond, ["10.78.0.1/24", "fd78::1/64"], ["10.78.0.2/24", "fd78::2/64"])
        pair.far.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        pair.near.run("ip", "route", "add", "10.78.0.0/24", "via", FAR)
        pair.near.run("ip", "route", "add", "fd78::/64", "via", "fd77::2")
        pair.near.run("sysctl", "-qw", "net.ipv4.ip_default_ttl=1")
        pair.near.run("sysctl", "-qw", "net.ipv6.conf.all.hop_limit=1")
        pair.near.run("ip", "-6", "route", "change", "fd78::/64", "via", "fd77::2", "hoplimit", "1")
        async with ICMPPinger(itself, timeout=timedelta(days=1)) as pinger:
            for address in ("10.78.0.2", "fd78::2"):
                with pytest.raises(UndeliveredError, match="Time to live exceeded"):
                    await pinger.ping(address)


async def test_a_firewall_of_our_own_is_the_reason(pair: Pair) -> None:
    pair.near.rules("output", f"ip daddr {FAR} drop")
    async with ICMPPinger(itself, timeout=timedelta(days=1)) as pinger:
        for _ in range(8):
            with pytest.raises(UndeliveredError, match="Operation not permitted"):
                await pinger.ping(FAR)
        assert pinger.loss(FAR) == 100
        assert pinger.statistics().send_errors == 8
        assert pinger.statistics().sent == 0


@pytest.mark.usefixtures("pair")
async def test_no_route_is_the_reason() -> None:
    async with ICMPPinger(itself) as pinger:
        with pytest.raises(UndeliveredError, match="Network is unreachable"):
            await pinger.ping("192.0.2.1")


async def test_only_the_answer_to_the_probe_counts(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=PATIENT) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        forged = asked.payload[:4] + bytes(12)
        responder.reply(asked, payload=forged)
        responder.reply(asked, sequence=asked.sequence ^ 1)
        responder.send(b"\0" * 24, asked)
        await until(lambda: pinger.statistics().foreign == 2)
        assert not ping.done()
        responder.reply(asked)
        assert await ping > 0
        responder.reply(asked)
        await until(lambda: pinger.statistics().duplicates == 1)
        assert pinger.statistics().answered == 1
        assert pinger.statistics().late == 0


async def test_only_a_report_about_the_probe_ends_it(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=timedelta(days=1)) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        quote = encode_echo(REQUEST_V4, asked.identifier, asked.sequence, asked.payload)
        forged = encode_echo(REQUEST_V4, asked.identifier, asked.sequence, bytes(16))
        for wrong in (forged, encode_echo(REPLY_V4, 1, 2, asked.payload)):
            responder.send(_unreachable(wrong), asked)
        await until(lambda: pinger.statistics().foreign == 2)
        assert not ping.done()
        responder.send(_unreachable(quote[:8]), asked)
        with pytest.raises(UndeliveredError, match="No route to host"):
            await ping


def _unreachable(quote: bytes) -> bytes:
    """Host unreachable (RFC 792): it quotes the IPv4 header and what follows."""
    addresses = socket.inet_aton("10.77.0.1") + socket.inet_aton(FAR)
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 44, 0, 0, 64, 1, 0) + addresses + quote
    body = bytes(4) + quoted
    return struct.pack("!BBH", 3, 1, checksum(b"\3\1\0\0" + body)) + body


async def test_an_answer_from_another_address_does_not_count(silent: Pair) -> None:
    silent.far.run("ip", "address", "add", "10.77.0.3/32", "dev", "lo")
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=PATIENT) as pinger:
        ping = asyncio.create_task(pinger.ping("10.77.0.3"))
        responder.reply(await responder.request())  # routed out by the first address
        await until(lambda: pinger.statistics().foreign == 1)
        ping.cancel()
        await asyncio.wait([ping])
        assert pinger.loss("10.77.0.3") == -1


async def test_a_storm_of_forged_answers_is_kept_out_by_the_kernel(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=PATIENT) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        for number in range(20_000):
            responder.reply(asked, payload=number.to_bytes(16, "big"))
            responder.reply(asked, identifier=asked.identifier ^ 1)
        responder.reply(asked)
        assert await ping > 0
        seen = pinger.statistics()
        assert (seen.foreign, seen.receive_drops) == (0, 0)


async def test_a_storm_of_duplicates_is_counted_and_bounded_by_the_queue(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=PATIENT) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        for _ in range(20_000):  # the pinger does not read meanwhile
            responder.reply(asked)
        assert await ping > 0
        await until(lambda: _accounted(pinger) == 20_000)
        assert pinger.statistics().receive_drops > 0


def _accounted(pinger: ICMPPinger) -> int:
    seen = pinger.statistics()
    return seen.answered + seen.duplicates + seen.receive_drops


async def test_a_late_answer_does_not_count(silent: Pair) -> None:
    clock = ManualClock()
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, clock=clock) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        assert pinger.loss(FAR) == -1
        assert pinger.statistics().in_flight == 1
        await clock.advance(2)
        with pytest.raises(NoAnswerError):
            await ping
        responder.reply(asked)
        await until(lambda: pinger.statistics().late == 1)
        assert pinger.statistics().lost == 1


async def test_what_arrived_in_time_counts_though_it_is_read_after_the_deadline(
    silent: Pair,
) -> None:
    clock = ManualClock()
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, clock=clock) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        responder.reply(await responder.request())
        await clock.advance(2)
        assert await ping < 2_000_000_000


async def test_an_answer_that_took_longer_than_the_timeout_is_late_even_if_nobody_noticed(
    silent: Pair,
) -> None:
    with silent.far.inside():
        responder = Responder()
    timeout = timedelta(microseconds=1)
    async with responder, ICMPPinger(itself, timeout=timeout, clock=ManualClock()) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        responder.reply(await responder.request())
        with pytest.raises(NoAnswerError):
            await ping
        assert pinger.statistics().late == 1


async def test_the_window_follows_the_latest_twenty(silent: Pair) -> None:
    clock = ManualClock()
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, clock=clock) as pinger:

        async def ping(*, answered: bool) -> None:
            under_way = asyncio.create_task(pinger.ping(FAR))
            asked = await responder.request()
            if answered:
                responder.reply(asked)
                await under_way
            else:
                await clock.advance(2)
                with pytest.raises(PingError):
                    await under_way

        for _ in range(6):
            await ping(answered=True)
        await ping(answered=False)
        assert pinger.loss(FAR) == -1
        await ping(answered=False)
        assert pinger.loss(FAR) == 25
        for _ in range(12):
            await ping(answered=True)
        assert pinger.loss(FAR) == 10
        for _ in range(8):
            await ping(answered=True)
        assert pinger.loss(FAR) == 0


async def test_a_cancelled_ping_leaves_nothing_behind(silent: Pair) -> None:
    with silent.far.inside():
        responder = Responder()
    async with responder, ICMPPinger(itself, timeout=PATIENT) as pinger:
        ping = asyncio.create_task(pinger.ping(FAR))
        asked = await responder.request()
        ping.cancel()
        await asyncio.wait([ping])
        seen = pinger.statistics()
        assert (seen.in_flight, seen.cancelled, seen.lost) == (0, 1, 0)
        assert pinger.loss(FAR) == -1
        responder.reply(asked)
        await until(lambda: pinger.statistics().late == 1)


@pytest.mark.usefixtures("silent")
async def test_closing_fails_pings_under_way_and_waiting() -> None:
    pinger = ICMPPinger(itself, clock=ManualClock())
    pings = [asyncio.create_task(pinger.ping(FAR)) for _ in range(200)]
    await until(lambda: pinger.statistics().waiting == 72)
    await pinger.aclose()
    await pinger.aclose()
    answers = await asyncio.gather(*pings, return_exceptions=True)
    assert {str(answer) for answer in answers} == {f"{FAR}: the pinger is closed"}
    seen = pinger.statistics()
    assert (seen.in_flight, seen.waiting, seen.cancelled) == (0, 0, 128)


@pytest.mark.usefixtures("silent")
async def test_five_hundred_pings_are_spread_over_a_tenth_of_a_second() -> None:
    clock = ManualClock()
    peers = {f"peer-{number}": FAR for number in range(500)}
    async with ICMPPinger(peers.__getitem__, clock=clock) as pinger:
        pings = [asyncio.create_task(pinger.ping(peer)) for peer in peers]
        await until(lambda: pinger.statistics().sent >= 128)
        steps = []
        for _ in range(21):
            before = pinger.statistics().sent
            await clock.advance(0.005)
            steps.append(pinger.statistics().sent - before)
        assert pinger.statistics().sent == 500
        assert max(steps) < 64
        pings[0].cancel()
        await clock.advance(2.1)
        await asyncio.wait(pings)
        assert pinger.statistics().lost == 499
