"""Whatever a control plane lists, what remains is a list that nothing else refuses."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from plexd.agent.peer_list import read_list
from plexd.api import Peer, special_purpose
from plexd.wireguard import PeerIndex

OURS = "plexd0"

ids = st.sampled_from(["a", "b", ""]) | st.text(max_size=300)
keys = st.sampled_from([b"1" * 32, b"2" * 32, b"3" * 31]) | st.binary(min_size=32, max_size=32)
plain = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.1", "fd00::2", "fe80::1", "::1", ""])
endings = st.sampled_from(["", "/0", "/24", "/64", "/129", f"%{OURS}", "%x y", "%", f"%{OURS}/64"])
addresses = st.builds(str.__add__, plain, endings) | st.text(max_size=20)
peers = st.builds(Peer, ids, keys.map(lambda raw: b64encode(raw).decode()), addresses)
entries = peers | st.none() | st.integers() | st.builds(Peer, st.none(), st.integers(), addresses)


@given(listed=st.lists(entries, max_size=12))
def test_what_remains_of_a_list_is_right_and_in_its_order(listed: list[object]) -> None:
    found = asyncio.run(read_list(listed, OURS))
    index = PeerIndex(found.peers)  # raises for what is not right
    assert len(found.peers) + found.left_out == len(listed)
    assert [entry for entry in listed if any(entry is peer for peer in found.peers)] == found.peers
    assert bool(found.error) == bool(found.left_out)
    assert found.error.isprintable()
    for peer_id in index.peer_ids():
        address = index.address(peer_id)
        zone = address.scope_id if isinstance(address, IPv6Address) else None
        assert special_purpose(address) == ("link-local" if zone else "")
        assert zone in {None, OURS}


@given(good=st.lists(peers, max_size=6), bad=peers, place=st.integers(0, 6))
def test_one_more_entry_takes_nothing_from_those_before_it(
    good: list[Peer], bad: Peer, place: int
) -> None:
    before = asyncio.run(read_list(good, OURS)).peers
    after = asyncio.run(read_list([*good[:place], bad, *good[place:]], OURS)).peers
    kept = asyncio.run(read_list(good[:place], OURS)).peers
    assert after[: len(kept)] == kept
    assert len(after) >= len(before) - 3  # it can be the first with an id, a key and an address
