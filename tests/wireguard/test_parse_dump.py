"""A kernel's bytes into a device, or into a reason to ask again."""

from __future__ import annotations

import struct
from errno import EINTR, ENODEV
from typing import TYPE_CHECKING

import pytest

from plexd.wireguard import Device, DevicePeer, DumpError, RefusedError
from plexd.wireguard.dump import parse_dump
from plexd.wireguard.netlink import encode_attribute
from wireguard.messages import (
    INTERRUPTED,
    PRESHARED,
    PRIVATE,
    continued,
    device,
    done,
    dump,
    key,
    message,
    peer,
    refusal,
    spellings,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PEERS = (
    peer(1, handshake_nano=1_700_000_000_123_456_789, rx=5, tx=2**64 - 1),
    DevicePeer(key(2), None, 0, 0, 0),
    DevicePeer(key(3), "[fd00::3]:51820", 0, 7, 8),
)


def test_peers_read_as_the_kernel_writes_them() -> None:
    assert parse_dump(dump(PEERS)) == Device("wg0", PEERS)


def test_the_order_of_attributes_does_not_matter() -> None:
    backwards = [whole(one, backwards=True) for one in PEERS]
    assert parse_dump([device(backwards), done()]) == Device("wg0", PEERS)


def test_peers_spread_over_many_messages_are_one_device() -> None:
    many = tuple(peer(i) for i in range(1, 250))
    assert parse_dump(dump(many, per_message=7)).peers == many
    assert parse_dump([b"".join(dump(many, per_message=7))]).peers == many


def test_a_peer_that_goes_on_in_the_next_message_is_one_peer() -> None:
    first, second = peer(1, rx=1), peer(2, rx=2)
    goes_on = [continued(first.public_key), whole(second)]
    messages = [device([whole(first)]), device([continued(first.public_key)]), device(goes_on)]
    assert parse_dump([*messages, done()]).peers == (first, second)


def test_an_interface_without_peers_is_a_device() -> None:
    assert parse_dump(dump([])) == Device("wg0")


@pytest.mark.parametrize("text", [*spellings(PRIVATE), *spellings(PRESHARED)])
def test_secret_keys_are_nowhere_in_what_is_read(text: str) -> None:
    backwards = [device([whole(one, backwards=True) for one in PEERS]), done()]
    assert text not in repr(parse_dump(dump(PEERS)))
    assert text not in repr(parse_dump(backwards))


def test_a_strange_address_family_is_no_endpoint() -> None:
    strange = encode_attribute(
        0, whole(PEERS[1])[4:] + encode_attribute(4, struct.pack("=H", 99) + bytes(14))
    )
    assert parse_dump([device([strange]), done()]).peers == (PEERS[1],)


def test_an_attribute_of_a_newer_kernel_is_skipped() -> None:
    newer = encode_attribute(0, whole(PEERS[1])[4:] + encode_attribute(77, b"new"))
    assert parse_dump([device([newer]), done()]).peers == (PEERS[1],)


def test_a_message_that_is_no_part_of_a_device_is_skipped() -> None:
    noop = message(1, b"", 0)
    assert parse_dump([noop + dump(PEERS)[0], done()]) == Device("wg0", PEERS)


def _cut(raw: bytes) -> list[bytes]:
    return [raw[:-4], done()]


def _short_key() -> bytes:
    return encode_attribute(0, encode_attribute(1, b"short") + encode_attribute(7, bytes(8)))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no end"),
        (dump(PEERS)[:-1], "no end"),
        ([done()], "names no interface"),
        ([device([], flags=INTERRUPTED), done()], "changed during"),
        ([*dump(PEERS)[:-1], done(flags=INTERRUPTED)], "changed during"),
        ([*dump(PEERS)[:-1], done(-EINTR)], "Interrupted"),
        ([refusal(EINTR)], "Interrupted"),
        (_cut(dump(PEERS)[0]), "claims"),
        ([b"\x10"], "message is cut short"),
        ([message(31, b"")], "generic netlink message is cut short"),
        ([message(3, b"")], "status is cut short"),
        ([message(2, struct.pack("=i", 5))], "means nothing"),
        ([message(31, bytes(4) + b"\4\0")], "attribute is cut short"),
        ([message(31, bytes(4) + b"\3\0\2\0")], "attribute claims 3"),
        ([message(31, bytes(4) + b"\xff\xff\2\0")], "attribute claims"),
        ([device([]), device([], b"wg1"), done()], "'wg0' and of 'wg1'"),
        ([device([whole(PEERS[0])]), device([whole(PEERS[0])]), done()], "twice"),
        ([device([continued(key(9))]), done()], "did not begin"),
        ([device([whole(PEERS[0]), continued(key(9))]), done()], "did not begin"),
        ([device([_short_key()]), done()], "attribute 1 of a peer"),
        ([device([encode_attribute(0, b"")]), done()], "attribute 1 of a peer"),
    ],
)
def test_a_dump_that_is_not_whole_and_consistent_is_asked_for_again(
    messages: Sequence[bytes], reason: str
) -> None:
    with pytest.raises(DumpError, match=reason):
        parse_dump(messages)


def test_a_half_peer_is_never_reported() -> None:
    half = encode_attribute(0, encode_attribute(1, bytes(32)) + encode_attribute(7, bytes(8)))
    with pytest.raises(DumpError, match="attribute 6 of a peer is missing"):
        parse_dump([device([half]), done()])


@pytest.mark.parametrize("messages", [[refusal(ENODEV)], [device([]), done(-ENODEV)]])
def test_a_refusal_has_the_error_number(messages: list[bytes]) -> None:
    with pytest.raises(RefusedError, match="No such device") as caught:
        parse_dump(messages)
    assert caught.value.errno == ENODEV


def test_an_acknowledgement_is_no_refusal() -> None:
    assert parse_dump([refusal(0), *dump(PEERS)]) == Device("wg0", PEERS)
