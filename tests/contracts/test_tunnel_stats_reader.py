"""What every `TunnelStatsReader` promises, the real one on both sources and the shipped one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from plexd.api import GROUP_TUNNEL, MetricBatch, MetricPoint, Peer, check_points, decode_batch
from plexd.clock import SystemClock
from plexd.metrics import TunnelStatsReader
from plexd.metrics.testing import ScriptedTunnelReader
from plexd.wireguard import PeerIndex, WireGuardStatsReader
from wireguard.fakes import ScriptedKernel, answering, daemon
from wireguard.messages import dump, family, key, peer, refusal, uapi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PEERS = [peer(2, handshake_nano=10**18, rx=3, tx=4), peer(1, rx=1, tx=2), peer(3)]
INDEX = [Peer("alice", key(1), "10.0.0.1"), Peer("bob", key(2), "10.0.0.2")]


@pytest.fixture(params=["kernel", "userspace", "scripted"])
async def reader(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[TunnelStatsReader]:
    async with AsyncExitStack() as stack:
        in_kernel = request.param == "kernel"
        talks = [[family()], dump(PEERS)] * 20 if in_kernel else [[refusal(2)]]
        source = ScriptedKernel(*talks)
        stack.callback(source.close)
        await stack.enter_async_context(daemon(tmp_path, answering(uapi(PEERS))))
        real = WireGuardStatsReader(
            "wg0", PeerIndex(INDEX), connect=source.connect, directory=tmp_path
        )
        yield (
            ScriptedTunnelReader(await real.read_tunnel_stats())
            if request.param == "scripted"
            else real
        )


def test_it_is_recognised_as_a_tunnel_stats_reader(reader: TunnelStatsReader) -> None:
    assert isinstance(reader, TunnelStatsReader)


async def test_a_reading_fits_the_wire(reader: TunnelStatsReader) -> None:
    stats = list(await reader.read_tunnel_stats())
    now = SystemClock().now()
    points = [
        MetricPoint(timestamp=now, group=GROUP_TUNNEL, peer_id=one.peer_id, data=one)
        for one in stats
    ]
    check_points(points)
    assert [point.data for point in decode_batch(MetricBatch(points).to_json())] == stats


async def test_each_peer_comes_once_and_in_a_stable_order(reader: TunnelStatsReader) -> None:
    first, second = await reader.read_tunnel_stats(), await reader.read_tunnel_stats()
    ids = [one.peer_id for one in first]
    assert ids == [one.peer_id for one in second] == ["alice", "bob", key(3)]


async def test_a_peer_that_never_shook_hands_did_not_succeed(reader: TunnelStatsReader) -> None:
    for one in await reader.read_tunnel_stats():
        assert one.handshake_succeeded is (one.last_handshake_time.year > 1)


async def test_readings_at_the_same_time_do_not_disturb_each_other(
    reader: TunnelStatsReader,
) -> None:
    readings = await asyncio.gather(*[reader.read_tunnel_stats() for _ in range(5)])
    assert all(list(one) == list(readings[0]) for one in readings)


async def test_a_cancelled_reading_leaves_the_reader_usable(reader: TunnelStatsReader) -> None:
    reading = asyncio.ensure_future(reader.read_tunnel_stats())
    await asyncio.sleep(0)  # it has begun, or a cancellation would show nothing
    reading.cancel()
    await asyncio.wait([reading])
    assert len(await reader.read_tunnel_stats()) == 3
