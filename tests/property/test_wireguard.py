"""Any answer of a kernel or a daemon gives the right tunnels or one kind of error."""

from __future__ import annotations

import re
import socket
import struct
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plexd.api import Peer
from plexd.wireguard import DevicePeer, PeerError, PeerIndex, WireGuardError
from plexd.wireguard.dump import parse_dump
from plexd.wireguard.netlink import attributes, encode_attribute, messages, parse_family
from plexd.wireguard.uapi import parse_answer
from wireguard.messages import device, done, dump, key, message, uapi, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Address, IPv6Address


def _as_wg_prints(address: IPv4Address | IPv6Address) -> str:
    return socket.inet_ntop(socket.AF_INET6, address.packed)


uint64 = st.integers(0, 2**64 - 1)
keys = st.integers(0, 2**256 - 1).map(key)
ports = st.integers(0, 65535)
endpoints = (
    st.builds("{}:{}".format, st.ip_addresses(v=4), ports)
    | st.builds("[{}]:{}".format, st.ip_addresses(v=6).map(_as_wg_prints), ports)
    | st.none()
)
handshakes = st.just(0) | st.integers(0, 2**62)
peers = st.builds(DevicePeer, keys, endpoints, handshakes, uint64, uint64)
NOW_NANO = 1_767_225_600 * 10**9
devices = st.lists(peers, max_size=8, unique_by=lambda one: one.public_key)

# Bytes made of what these answers are made of get further than bytes at random.
headers = st.builds(
    struct.pack,
    st.just("=IHHII"),
    st.integers(0, 200),
    st.sampled_from([1, 2, 3, 16, 31]),
    st.sampled_from([0, 2, 0x10]),
    st.just(0),
    st.just(0),
)
tagged = st.builds(encode_attribute, st.integers(0, 10), st.binary(max_size=36))
nested = st.builds(
    encode_attribute, st.sampled_from([0, 8, 9, 0x8008]), st.lists(tagged).map(b"".join)
)
framed = st.builds(
    message, st.sampled_from([2, 3, 16, 31]), (nested | tagged).map(bytes(4).__add__)
)
datagrams = st.binary() | headers | framed | st.lists(headers | framed | tagged).map(b"".join)
LINES = [b"public_key=", b"00" * 32, b"rx_bytes=", b"tx_bytes=1", b"endpoint=", b"errno=0", b"\n"]
MORE = [b"last_handshake_time_sec=0", b"last_handshake_time_nsec=0", b"=", b"9" * 20, b"\n\n"]
almost = st.lists(st.sampled_from(LINES + MORE) | st.binary(max_size=3)).map(b"".join)


def ends_in_a_value_or_a_wireguard_error(parse: Callable[[], object]) -> None:
    said = "fine"
    try:
        parse()
    except WireGuardError as err:
        said = str(err)
    assert said.isprintable()


@given(said=st.lists(datagrams))
@example(said=[bytes(16)])
@example(said=[message(2, struct.pack("=i", -(2**31)))])
def test_datagrams_of_any_kind_end_in_a_value_or_in_a_wireguard_error(said: list[bytes]) -> None:
    ends_in_a_value_or_a_wireguard_error(lambda: parse_dump([*said, done()]))


@given(said=datagrams)
def test_an_answer_about_a_family_is_a_number_or_a_wireguard_error(said: bytes) -> None:
    ends_in_a_value_or_a_wireguard_error(lambda: parse_family(said))


def number_of(items: Iterator[object], most: int) -> int:
    """How many there are before the end or an error; one more than ``most`` is enough."""
    number = 0
    with suppress(WireGuardError):
        for _ in islice(items, most + 1):
            number += 1
    return number


@given(said=datagrams)
@example(said=message(16, b""))
@example(said=encode_attribute(1, b"") * 4)
def test_there_are_no_more_messages_and_attributes_than_headers_fit(said: bytes) -> None:
    size = len(said)
    assert number_of(messages(said), size // 16) <= size // 16
    assert number_of(attributes(said, 0, size), size // 4) <= size // 4


@given(text=st.binary() | almost | almost.map(lambda text: text + b"\nerrno=0\n\n"))
def test_text_of_any_kind_ends_in_a_value_or_in_a_wireguard_error(text: bytes) -> None:
    ends_in_a_value_or_a_wireguard_error(lambda: parse_answer("wg0", text, now_nano=NOW_NANO))


@given(shown=devices, per_message=st.integers(1, 8), together=st.booleans())
def test_a_dump_reads_as_written(shown: list[DevicePeer], per_message: int, together: bool) -> None:
    said = dump(shown, per_message)
    assert list(parse_dump([b"".join(said)] if together else said).peers) == shown


@given(shown=devices)
def test_the_quick_way_and_the_long_way_through_a_dump_agree(shown: list[DevicePeer]) -> None:
    backwards = [device([whole(one, backwards=True) for one in shown]), done()]
    assert parse_dump(backwards) == parse_dump(dump(shown))


@given(shown=devices)
def test_the_quick_way_and_the_long_way_through_an_answer_agree(shown: list[DevicePeer]) -> None:
    text = uapi(shown)
    assert list(parse_answer("wg0", text, now_nano=NOW_NANO).peers) == shown
    other = re.sub(rb"(tx_bytes=\d+\n)(rx_bytes=\d+\n)", rb"\2\1", text)
    assert list(parse_answer("wg0", other, now_nano=NOW_NANO).peers) == shown


@given(shown=devices, at=st.integers(0, 7), line=almost)
def test_a_line_of_any_kind_costs_one_peer_at_most(
    shown: list[DevicePeer], at: int, line: bytes
) -> None:
    text = uapi(shown)
    places = [found.start() for found in re.finditer(rb"protocol_version", text)]
    place = places[at % len(places)] if places else 0
    garbled = text[:place] + line.replace(b"\n", b"") + b"\n" + text[place:]
    is_meant = line.replace(b"\n", b"").startswith((b"errno=", b"public_key=", b"endpoint="))
    if is_meant or not line.strip(b"\n"):
        return  # an answer of its own, not garbage
    read = parse_answer("wg0", garbled, now_nano=NOW_NANO)
    assert len(read.peers) >= len(shown) - 1
    assert set(read.peers) <= set(shown)


@given(shown=devices, data=st.data())
def test_a_dump_cut_anywhere_gives_the_peers_before_the_cut_or_an_error(
    shown: list[DevicePeer], data: st.DataObject
) -> None:
    said = dump(shown, per_message=1)
    kept = data.draw(st.integers(0, len(said) - 1))
    cut = said[kept][: data.draw(st.just(0) | st.integers(0, len(said[kept]) - 1))]
    with pytest.raises(WireGuardError):
        parse_dump([*said[:kept], cut])
    if cut or not kept:
        with pytest.raises(WireGuardError):
            parse_dump([*said[:kept], cut, done()])
    else:
        assert list(parse_dump([*said[:kept], done()]).peers) == shown[:kept]


@given(shown=devices, data=st.data())
def test_a_cut_answer_is_an_error(shown: list[DevicePeer], data: st.DataObject) -> None:
    text = uapi(shown)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(WireGuardError):
        parse_answer("wg0", cut, now_nano=NOW_NANO)


@given(
    listed=st.lists(
        st.builds(
            Peer, st.text(max_size=3), keys | st.text(), st.text() | st.ip_addresses().map(str)
        )
    )
)
def test_a_list_of_peers_is_an_index_or_a_peer_error(listed: list[Peer]) -> None:
    try:
        index = PeerIndex(listed)
    except PeerError:
        return
    assert list(index.peer_ids()) == [one.id for one in listed]
    assert [index.peer_id(one.public_key) for one in listed] == [one.id for one in listed]
    assert len({index.address(one.id) for one in listed}) == len(listed)
