"""The reader in a real kernel beside ``wg``. `kernel.guest` is the program that runs there."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from kernel.machine import SECONDS
from kernel.shown import peers_read, peers_shown, secret_keys
from plexd.wireguard.dump import parse_dump
from plexd.wireguard.errors import DumpError

if TYPE_CHECKING:
    from kernel.results import Results

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(SECONDS + 30)]


def test_two_peers_are_read_as_wg_shows_them(results: Results) -> None:
    assert len(results.pair.device.peers) == 2
    assert peers_read(results.pair.device) == peers_shown(results.pair.shown)


def test_a_thousand_peers_are_read_as_wg_shows_them(results: Results) -> None:
    assert len(results.thousand.device.peers) == 1000
    assert peers_read(results.thousand.device) == peers_shown(results.thousand.shown)


def test_handshakes_are_of_the_time_in_which_hands_were_shaken(results: Results) -> None:
    for peer in results.pair.device.peers:
        assert peer.last_handshake is not None
        assert results.began <= peer.last_handshake <= results.ended
        assert peer.rx_bytes > 0
        assert peer.tx_bytes > 0


def test_peers_that_never_shook_hands_have_no_handshake(results: Results) -> None:
    assert {peer.last_handshake for peer in results.thousand.device.peers} == {None}


def test_tunnels_are_told_under_the_peers_name_or_under_the_key_of_a_stranger(
    results: Results,
) -> None:
    first, second = results.pair.device.peers
    assert [stats.peer_id for stats in results.stats] == ["known", second.public_key]
    for stats, peer in zip(results.stats, (first, second), strict=True):
        assert stats.handshake_succeeded
        assert not stats.handshake_stale
        assert stats.last_handshake_time == peer.last_handshake
        assert stats.rx_bytes >= peer.rx_bytes
        assert stats.tx_bytes >= peer.tx_bytes


def test_secret_keys_are_in_the_dump_and_not_in_what_is_read(results: Results) -> None:
    for reading, secrets in ((results.pair, 2), (results.thousand, 335)):
        keys = secret_keys(reading.shown)
        received = b"".join(reading.conversations[1])
        told = repr((reading.device, results.stats))
        assert len(keys) == secrets
        for key in keys:
            raw = b64decode(key)
            assert raw in received
            assert key not in told
            assert raw.hex() not in told
            assert repr(raw)[2:-1] not in told


def test_an_interface_that_changes_during_a_dump_is_dumped_again(results: Results) -> None:
    _, first, again = results.interrupted.conversations
    with pytest.raises(DumpError, match="changed during the dump"):
        parse_dump(first)
    assert parse_dump(again) == results.interrupted.device
    assert peers_read(results.interrupted.device) == peers_shown(results.interrupted.shown)


def test_what_is_absent_has_a_reason_that_an_operator_understands(results: Results) -> None:
    absences = results.absences
    assert absences.no_module == "the kernel has no WireGuard (modprobe wireguard)"
    assert absences.no_interface == "no such interface"
    assert absences.not_wireguard == "the interface is not one of the kernel's WireGuard"
    assert "CAP_NET_ADMIN" in absences.no_right


def test_an_interface_that_goes_and_returns_is_absent_and_read_again(results: Results) -> None:
    assert results.absences.removed == "no such interface"
    assert results.returned.interface == "plexd0"
    assert results.returned.peers == ()
