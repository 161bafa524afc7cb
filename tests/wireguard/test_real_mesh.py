"""The reader beside `wg` on tunnels that really shook hands."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from plexd.api import Peer
from plexd.clock import SystemClock
from plexd.wireguard import Device, PeerIndex, WireGuardError, WireGuardStatsReader, userspace
from plexd.wireguard.userspace import UserspaceReader
from wireguard.mesh import Mesh, Node, needs_a_mesh, run, section
from wireguard.messages import key

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_a_mesh

NODES = 5
MANY = 1000
# Between two looks a peer may have been sent a keepalive; it is not sent one every time.
LOOKS = 20


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh(NODES) as made:
        made.shake_hands()
        yield made


@pytest.fixture
def crowd() -> Iterator[Node]:
    """One node with a thousand peers who are not there."""
    with closing(Node(1, "c")) as node:
        node.start(stranger(i) for i in range(1, MANY + 1))
        yield node


def stranger(number: int) -> str:
    """A peer whose endpoint follows from its key."""
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"
    return section(key(number), address, f"127.0.0.1:{number}")


def index(mesh: Mesh, node: Node) -> PeerIndex:
    others = [other for other in mesh.nodes if other is not node]
    return PeerIndex(Peer(o.namespace, o.public_key, f"{o.address}/32") for o in others)


async def read(node: Node) -> Device:
    source = await userspace.open(node.interface)
    assert isinstance(source, UserspaceReader)
    device = await source.read_device()
    assert isinstance(device, Device)
    return device


async def as_wg_shows_it(node: Node) -> list[list[str]]:
    """A reading as `wg show dump` prints it, without the fields that are not read."""
    return sorted(
        [
            peer.public_key,
            peer.endpoint or "(none)",
            str(peer.last_handshake_nano // 10**9),
            str(peer.rx_bytes),
            str(peer.tx_bytes),
        ]
        for peer in (await read(node)).peers
    )


async def assert_same_as_wg(node: Node) -> None:
    for _ in range(LOOKS):
        before, here, after = node.shown(), await as_wg_shows_it(node), node.shown()
        if before == after:
            assert here == [[f[0], f[2], f[4], f[5], f[6]] for f in before]
            return
    pytest.fail("the counters never stopped changing")


async def test_every_node_reads_what_wg_shows(mesh: Mesh) -> None:
    for node in mesh.nodes:
        await assert_same_as_wg(node)


async def test_tunnels_that_shook_hands_are_alive_and_named(mesh: Mesh) -> None:
    for node in mesh.nodes:
        peers = index(mesh, node)
        stats = await WireGuardStatsReader(node.interface, peers).read_tunnel_stats()
        assert [one.peer_id for one in stats] == list(peers.peer_ids())
        for one in stats:
            assert one.handshake_succeeded
            assert not one.handshake_stale
            assert 0 <= (SystemClock().now() - one.last_handshake_time).total_seconds() < 120
            assert one.rx_bytes > 0
            assert one.tx_bytes > 0


async def test_a_removed_peer_disappears_and_comes_back(mesh: Mesh) -> None:
    node, gone = mesh.nodes[0], mesh.nodes[1]
    reader = WireGuardStatsReader(node.interface, index(mesh, node))
    run("wg", "set", node.interface, "peer", gone.public_key, "remove")
    assert gone.namespace not in {one.peer_id for one in await reader.read_tunnel_stats()}
    node.configure(mesh.sections(node))
    mesh.greet(node)
    assert all(one.handshake_succeeded for one in await reader.read_tunnel_stats())


async def test_a_killed_daemon_is_an_error_and_a_restarted_one_is_read(mesh: Mesh) -> None:
    node = mesh.nodes[2]
    reader = WireGuardStatsReader(node.interface, index(mesh, node))
    assert len(await reader.read_tunnel_stats()) == NODES - 1
    node.kill()
    with pytest.raises(WireGuardError, match=r"userspace: .*Connection refused"):
        await reader.read_tunnel_stats()
    node.start(mesh.sections(node))
    stats = await reader.read_tunnel_stats()
    assert [one.handshake_succeeded for one in stats] == [False] * (NODES - 1)
    mesh.greet(node)
    assert all(one.handshake_succeeded for one in await reader.read_tunnel_stats())


@pytest.mark.slow
async def test_a_stopped_daemon_ends_at_the_deadline(mesh: Mesh) -> None:
    node = mesh.nodes[3]
    reader = WireGuardStatsReader(node.interface, index(mesh, node))
    node.stop()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(WireGuardError, match="no whole answer within 2 s"):
                await reader.read_tunnel_stats()
    finally:
        node.go_on()
    assert len(await reader.read_tunnel_stats()) == NODES - 1


async def test_a_thousand_peers_read_as_wg_shows_them(crowd: Node) -> None:
    assert len((await read(crowd)).peers) == MANY
    await assert_same_as_wg(crowd)


@pytest.mark.slow
async def test_peers_that_come_and_go_during_readings_keep_their_keys(crowd: Node) -> None:
    halves = [[stranger(i) for i in range(1 + half, MANY, 2)] for half in (0, 1)]
    expected = {key(i): f"127.0.0.1:{i}" for i in range(1, MANY + 1)}
    for turn in range(10):
        changing = asyncio.create_task(asyncio.to_thread(crowd.configure, halves[turn % 2]))
        while True:
            settled = changing.done()
            for peer in (await read(crowd)).peers:
                assert peer.endpoint == expected[peer.public_key]
            if settled:
                break
        await changing
    assert len((await read(crowd)).peers) == len(halves[1])
