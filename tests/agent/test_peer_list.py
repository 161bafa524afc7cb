"""Which entries of a control plane's list this node uses, and what is said of the others."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT, Namespace
from plexd.agent.peer_list import MOST_PEERS, PeerList, read_list
from plexd.api import Peer
from plexd.wireguard import PeerIndex
from wireguard.messages import key

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = "plexd0"
ALICE = Peer("alice", key(1), "10.0.0.1")
BOB = Peer("bob", key(2), "fd00::2/128")


async def used(*entries: object) -> tuple[list[str], str]:
    found = await read_list(entries, OURS)
    index = PeerIndex()
    index.replace(found.table)
    assert list(index.peer_ids()) == [peer.id for peer in found.peers]
    return list(index.peer_ids()), found.error


BAD: list[tuple[object, str]] = [
    (Peer("", key(3), "10.0.0.3"), 'peer "": an id is 1 to 256 printable characters'),
    (Peer("x" * 257, key(3), "10.0.0.3"), "an id is 1 to 256 printable characters"),
    (Peer("a\x1b[2J", key(3), "10.0.0.3"), r'peer "a\x1b[2J": an id is'),
    (Peer("alice", key(3), "10.0.0.3"), "peer 'alice': there are two of this id"),
    (Peer("carol", key(1), "10.0.0.3"), "public key is that of 'alice'"),
    (Peer("carol", "hunter2", "10.0.0.3"), "public key is not the base64 of 32 bytes"),
    (Peer("carol", "", "10.0.0.3"), "public key is not the base64 of 32 bytes"),
    (Peer("carol", key(3), "10.0.0.1"), "mesh address 10.0.0.1 is that of 'alice'"),
    (Peer("carol", key(3), "FD00:0::2"), "mesh address fd00::2 is that of 'bob'"),
    (Peer("carol", key(3), ""), 'mesh_ip "" is no address'),
    (Peer("carol", key(3), "10.0.0.3/33"), "is no address"),
    (Peer("carol", key(3), "plane.example"), 'mesh_ip "plane.example" is no address'),
    (Peer("carol", key(3), "x" * 1_000_000), "is no address"),
    (Peer(7, key(3), "10.0.0.3"), "a peer whose id is no text"),  # type: ignore[arg-type]  # on purpose
    (Peer("carol", key(3), None), "a peer whose mesh_ip is no text"),  # type: ignore[arg-type]  # on purpose
    ({"id": "carol"}, "an entry that is no peer but dict"),
    (None, "an entry that is no peer but NoneType"),
]


@pytest.mark.parametrize(("entry", "reason"), BAD)
async def test_an_entry_that_cannot_be_used_costs_itself_only(entry: object, reason: str) -> None:
    carol = Peer("carol", key(4), "10.0.0.4")
    ids, error = await used(ALICE, BOB, entry, carol)
    assert ids == ["alice", "bob", "carol"]
    assert reason in error
    assert len(error) < 500


NO_NODES = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "169.254.169.254": "link-local",
    "fe80::1": "link-local",
    "febf::1/64": "link-local",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
    "::ffff:10.0.0.1": "IPv4 in IPv6 form",
    "::ffff:127.0.0.1": "IPv4 in IPv6 form",
    "::127.0.0.1": "IPv4 in IPv6 form",
    "64:ff9b::a00:1": "IPv4 in IPv6 form",
    "10.9.0.0/24": "that of its network itself",
    "10.9.0.255/24": "that of its network itself",
    "fd00:9::/64": "that of its network itself",
}


@pytest.mark.parametrize("address", NO_NODES)
async def test_an_address_of_no_other_node_is_not_pinged(address: str) -> None:
    ids, error = await used(Peer("evil", key(3), address), ALICE)
    assert ids == ["alice"]
    reason = f"cannot be that of a node: it is {NO_NODES[address]}"
    assert error == f"peer 'evil': mesh_ip \"{address}\" {reason}"


ZONES = ["fd00::2%x", "fd00::2%x y", f"fd00::2%{OURS}", "fe80::2%eth0", "fe80::2%1", "::1%lo"]


@pytest.mark.parametrize("address", [*ZONES, f"ff02::1%{OURS}", f"::ffff:10.0.0.1%{OURS}"])
async def test_a_zone_cannot_take_the_address_of_another_peer(address: str) -> None:
    ids, error = await used(Peer("evil", key(3), address), BOB)
    assert ids == ["bob"]
    assert error.endswith("has the zone of another interface than the mesh's")


async def test_a_link_local_address_on_the_meshs_interface_is_used_with_it() -> None:
    peer = Peer("near", key(3), f"fe80::1%{OURS}")
    found = await read_list([peer], OURS)
    index = PeerIndex()
    index.replace(found.table)
    assert (str(index.address("near")), found.left_out) == (f"fe80::1%{OURS}", 0)


def many(count: int) -> Iterable[Peer]:
    return (Peer(f"p{i}", key(i), f"fd00::{i:x}") for i in range(1, count + 1))


async def test_of_too_many_peers_the_first_ten_thousand_are_used_and_the_others_counted() -> None:
    found = await read_list([None, None, *many(MOST_PEERS + 3)], OURS)
    assert len(found.table) == MOST_PEERS == 10_000
    assert found.left_out == 5
    assert found.error.endswith("; 3 beyond the first 10000")


async def test_of_many_bad_entries_a_few_are_named() -> None:
    _, error = await used(*[Peer(f"p{i}", "", "10.0.0.1") for i in range(10)])
    assert re.fullmatch(r"peer 'p0'.*; peer 'p4'[^;]*; and 5 more", error)


async def test_other_tasks_run_while_a_long_list_is_read() -> None:
    """A turn of the loop takes in fifty entries, whatever the list."""
    reading = asyncio.create_task(read_list([None] * 5_000, OURS))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 5_000 / 50


async def test_a_list_without_a_check_may_have_any_address() -> None:
    """The node's own files may name loopback; what is ambiguous is left out of them as well."""
    found = PeerList()
    for peer in (Peer("self", key(1), "127.0.0.1"), Peer("other", key(2), "127.0.0.1")):
        found.add(peer)
    assert [peer.id for peer in found.peers] == ["self"]
    assert found.left_out == 1


@ROOT[0]
@ROOT[1]
@pytest.mark.parametrize("address", ["10.9.0.0", "10.9.0.255", "fd00:9::"])
async def test_the_addresses_of_the_meshs_own_network_are_of_no_node(
    address: str,
) -> None:
    with Namespace() as network:
        network.run("ip", "link", "add", OURS, "type", "veth")
        network.run("ip", "link", "set", OURS, "up")
        for own in ("10.9.0.1/24", "fd00:9::1/64"):
            network.run("ip", "address", "add", own, "dev", OURS)
        with network.inside():
            ids, error = await used(Peer("evil", key(3), address), ALICE)
            elsewhere = await read_list([Peer("fine", key(3), address)], "other0")
    assert ids == ["alice"]
    assert error.endswith("cannot be that of a node: it is that of its network itself")
    assert elsewhere.left_out == 0
