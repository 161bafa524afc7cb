"""Interfaces that vanish, return, and gain and lose peers while they are being read."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from plexd.api import Peer
from plexd.wireguard import (
    Absent,
    Device,
    PeerIndex,
    WireGuardError,
    WireGuardStatsReader,
    userspace,
)
from plexd.wireguard.userspace import UserspaceReader
from wireguard.mesh import Node, needs_a_mesh, run, section
from wireguard.messages import key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [*needs_a_mesh, pytest.mark.usefixtures("nothing_leaks")]

CHURN = 500
TURNS = 10


class Deletable(Node):
    """A node whose link may be deleted while its daemon runs, which then ends by itself."""

    def delete_link(self) -> None:
        run("ip", "-n", self.namespace, "link", "delete", self.interface)
        assert self._daemon is not None
        self._daemon.wait(timeout=30)
        self._log.close()


@pytest.fixture
def node() -> Iterator[Deletable]:
    """Peer 1 stays, whatever happens to the others."""
    with closing(Deletable(1, "v")) as made:
        made.start([stranger(1)])
        yield made


def stranger(number: int) -> str:
    """A peer whose endpoint follows from its key."""
    return section(key(number), allowed(number), f"127.0.0.1:{number}")


def allowed(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"


def stats_reader(node: Node) -> WireGuardStatsReader:
    return WireGuardStatsReader(node.interface, PeerIndex([Peer("one", key(1), "10.0.0.1")]))


async def opened(node: Node) -> UserspaceReader:
    source = await userspace.open(node.interface)
    assert isinstance(source, UserspaceReader)
    return source


async def test_an_interface_that_vanishes_between_finding_and_reading_is_no_device(
    node: Deletable,
) -> None:
    source = await opened(node)
    assert isinstance(await source.read_device(), Device)
    node.delete_link()
    absent = await source.read_device()
    assert isinstance(absent, Absent)
    assert f"{node.interface}.sock: No such file or directory" in absent.reason


async def test_a_deleted_link_is_an_error_with_its_reason_and_a_new_one_is_read(
    node: Deletable,
) -> None:
    reader = stats_reader(node)
    assert [one.peer_id for one in await reader.read_tunnel_stats()] == ["one"]
    node.delete_link()
    for _ in range(3):  # and nothing of before is repeated
        with pytest.raises(WireGuardError, match=f"{node.interface}: kernel: .*; userspace: .*No "):
            await reader.read_tunnel_stats()
    node.start([stranger(1)])
    assert [one.peer_id for one in await reader.read_tunnel_stats()] == ["one"]


async def test_five_hundred_peers_set_and_removed_during_readings_keep_their_keys(
    node: Node,
) -> None:
    numbers = range(2, 2 + CHURN)
    expected = {key(number): f"127.0.0.1:{number}" for number in (1, *numbers)}
    seen = set()
    for turn in range(TURNS):
        change = _arguments(node, numbers, remove=turn % 2 == 1)
        changing = asyncio.create_task(asyncio.to_thread(run, *change))
        settled = False
        while not settled:
            settled = changing.done()
            device = await (await opened(node)).read_device()
            assert isinstance(device, Device)
            keys = [peer.public_key for peer in device.peers]
            assert len(set(keys)) == len(keys)
            assert key(1) in keys
            assert all(peer.endpoint == expected[peer.public_key] for peer in device.peers)
            seen.add(len(keys))
        await changing
    assert {1, 1 + CHURN} <= seen


def _arguments(node: Node, numbers: Sequence[int], *, remove: bool) -> list[str]:
    """One call of `wg set` that adds or removes peers, each under the daemon's lock by itself."""
    command = ["wg", "set", node.interface]
    for number in numbers:
        command += ["peer", key(number)]
        if remove:
            command += ["remove"]
        else:
            command += ["endpoint", f"127.0.0.1:{number}", "allowed-ips", allowed(number)]
    return command
