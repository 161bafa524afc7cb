"""Which peer has which key and address, and which lists are ambiguous."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from plexd.api import Peer
from plexd.wireguard import PeerError, PeerIndex, PeerTable
from wireguard.messages import key

ALICE = Peer("alice", key(1), "10.0.0.1")
BOB = Peer("bob", key(2), "fd00::2/128")


def test_ids_keys_and_addresses_lead_to_each_other() -> None:
    index = PeerIndex([BOB, ALICE])
    assert index.peer_ids() == ("bob", "alice")
    assert index.peer_id(key(1)) == "alice"
    assert index.peer_id(key(3)) is None
    assert index.address("alice") == ip_address("10.0.0.1")


def test_a_prefix_length_is_left_off() -> None:
    assert PeerIndex([BOB]).address("bob") == ip_address("fd00::2")


def test_loading_forgets_the_peers_of_before() -> None:
    index = PeerIndex([ALICE])
    index.load([BOB])
    assert index.peer_ids() == ("bob",)
    with pytest.raises(PeerError, match="no peer is called 'alice'"):
        index.address("alice")


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Peer("", key(3), "10.0.0.3"), "a peer without an id"),
        (Peer("alice", key(3), "10.0.0.3"), "there are two of this id"),
        (Peer("carol", key(1), "10.0.0.3"), "public key is that of 'alice'"),
        (Peer("carol", key(3), "10.0.0.1/24"), "mesh address 10.0.0.1 is that of 'alice'"),
        (Peer("carol", key(3), "10.0.0"), "mesh_ip '10.0.0' is no address"),
        (Peer("carol", key(3), ""), "mesh_ip '' is no address"),
        (Peer("carol", key(3)[:-4], "10.0.0.3"), "public key is not the base64 of 32 bytes"),
        (Peer("carol", "ключ", "10.0.0.3"), "public key is not the base64 of 32 bytes"),
        (Peer("carol", key(3)[:-2] + "N=", "10.0.0.3"), "public key is not the base64"),
        (Peer("carol", "", "10.0.0.3"), "public key is not the base64 of 32 bytes"),
    ],
)
def test_a_list_with_an_ambiguous_or_unreadable_peer_is_refused_whole(
    peer: Peer, reason: str
) -> None:
    index = PeerIndex([BOB])
    with pytest.raises(PeerError, match=re.escape(reason)):
        index.load([ALICE, peer])
    assert index.peer_ids() == ("bob",)


def test_a_table_takes_peers_one_by_one_and_the_first_of_two_stays() -> None:
    table = PeerTable()
    table.add(ALICE)
    for peer in (Peer("alice", key(2), "10.0.0.2"), Peer("carol", key(3), "10.0.0.1")):
        with pytest.raises(PeerError):
            table.add(peer)
    table.add(BOB)
    index = PeerIndex([Peer("old", key(9), "10.0.0.9")])
    index.replace(table)
    assert (len(table), index.peer_ids()) == (2, ("alice", "bob"))
    assert (index.peer_id(key(1)), index.peer_id(key(9))) == ("alice", None)
    assert index.address("alice") == ip_address("10.0.0.1")


@pytest.mark.parametrize(
    ("text", "address"), [("fe80::1%eth0", "fe80::1%eth0"), ("fd00::1%eth0", "fd00::1")]
)
def test_a_zone_is_kept_only_where_nothing_can_be_sent_without_it(text: str, address: str) -> None:
    assert PeerIndex([Peer("alice", key(1), text)]).address("alice") == ip_address(address)


def test_of_many_bad_peers_only_a_few_are_named() -> None:
    with pytest.raises(PeerError, match=r"'p0'.*'p4'.*; and 5 more$"):
        PeerIndex([Peer(f"p{i}", "", "10.0.0.1") for i in range(10)])
