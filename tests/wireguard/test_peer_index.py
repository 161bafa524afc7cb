"""Which peer has which key and address, and which lists are ambiguous."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from plexd.api import Peer
from plexd.wireguard import PeerError, PeerIndex
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


def test_of_many_bad_peers_only_a_few_are_named() -> None:
    with pytest.raises(PeerError, match=r"'p0'.*'p4'.*; and 5 more$"):
        PeerIndex([Peer(f"p{i}", "", "10.0.0.1") for i in range(10)])
