"""What a real kernel sent once can be parsed on any machine."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kernel.recordings import load
from kernel.shown import peers_read, peers_shown, secret_keys
from plexd.wireguard.dump import WGDEVICE_A_PEERS, WGPEER_A_PUBLIC_KEY, parse_dump
from plexd.wireguard.errors import DumpError
from plexd.wireguard.netlink import GENERIC_HEADER, HEADER, NLMSG_DONE, attributes, parse_family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.recordings import Recording

WGDEVICE_A_PRIVATE_KEY = 3
WGPEER_A_PRESHARED_KEY = 2
NO_KEY = bytes(32)


@pytest.fixture(params=["two-peers", "thousand-peers"])
def whole(request: pytest.FixtureRequest) -> Recording:
    return load(request.param)


@pytest.fixture(params=["two-peers", "thousand-peers", "interrupted"])
def recording(request: pytest.FixtureRequest) -> Recording:
    return load(request.param)


def test_a_recorded_dump_is_read_as_wg_showed_it(whole: Recording) -> None:
    assert peers_read(parse_dump(whole.dump)) == peers_shown(whole.shown)


def test_a_peer_that_goes_on_in_the_next_message_is_one_peer() -> None:
    thousand = load("thousand-peers")
    parts = Counter(
        value for kind, value in peer_attributes(thousand) if kind == WGPEER_A_PUBLIC_KEY
    )
    assert parts.total() > len(parts) == 1000
    assert len(parse_dump(thousand.dump).peers) == 1000


def test_a_dump_during_which_the_interface_changed_is_not_trusted() -> None:
    with pytest.raises(DumpError, match="changed during the dump"):
        parse_dump(load("interrupted").dump)


def test_a_dump_without_its_last_datagram_is_not_trusted(whole: Recording) -> None:
    with pytest.raises(DumpError, match="no end"):
        parse_dump(whole.dump[:-1])


def test_a_dump_cut_at_any_byte_is_not_trusted() -> None:
    (datagram,) = load("two-peers").dump
    for size in range(len(datagram)):
        with pytest.raises(DumpError):
            parse_dump([datagram[:size]])


def test_the_family_answered_is_the_one_that_dumps(recording: Recording) -> None:
    _, kind, *_ = HEADER.unpack_from(recording.dump[0])
    assert parse_family(recording.family) == kind


def test_a_recording_has_the_place_of_secret_keys_and_none_of_them(recording: Recording) -> None:
    own = {value for kind, value in device_attributes(recording) if kind == WGDEVICE_A_PRIVATE_KEY}
    preshared = {
        value for kind, value in peer_attributes(recording) if kind == WGPEER_A_PRESHARED_KEY
    }
    assert own == preshared == {NO_KEY}
    assert not recording.shown or secret_keys(recording.shown) == set()


def device_attributes(recording: Recording) -> Iterator[tuple[int, bytes]]:
    """Yield those of every message, also of an interrupted one, whatever its flags say."""
    for datagram in recording.dump:
        at = 0
        while at < len(datagram):
            length, message_kind, *_ = HEADER.unpack_from(datagram, at)
            first = at + HEADER.size + GENERIC_HEADER.size
            if message_kind != NLMSG_DONE:
                for kind, start, end in attributes(datagram, first, at + length):
                    yield kind, datagram[start:end]
            at += -(-length // 4) * 4


def peer_attributes(recording: Recording) -> Iterator[tuple[int, bytes]]:
    for device_kind, peers in device_attributes(recording):
        if device_kind == WGDEVICE_A_PEERS:
            for _, peer_start, peer_end in attributes(peers, 0, len(peers)):
                for kind, start, end in attributes(peers, peer_start, peer_end):
                    yield kind, peers[start:end]
