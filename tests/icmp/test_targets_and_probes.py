"""What needs no network."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from icmp.namespaces import ROOT
from plexd.icmp import ClosedError, ICMPPinger, UndeliveredError, UnknownPeerError
from plexd.icmp.errors import SocketError
from plexd.icmp.probe import Probe, Probes
from plexd.icmp.sockets import open_socket
from plexd.icmp.targets import MOST_PEERS, LossWindow, Peers


async def test_an_unknown_peer_fails_with_that_reason() -> None:
    async with ICMPPinger(dict[str, str]().__getitem__) as pinger:
        with pytest.raises(UnknownPeerError, match=r"^peer-1: no address is known$"):
            await pinger.ping("peer-1")
        assert pinger.loss("peer-1") == -1


@pytest.mark.parametrize(
    "text", ["", "peer.example", "127.0.0.1/8", "127.1", "::1::", "a\0b", "\xe1"]
)
async def test_what_is_no_address_fails_with_that_reason(text: str) -> None:
    async with ICMPPinger(lambda _: text) as pinger:
        with pytest.raises(UnknownPeerError, match="is no IP address"):
            await pinger.ping("peer-1")


async def test_a_closed_pinger_says_so() -> None:
    pinger = ICMPPinger(lambda peer_id: peer_id)
    await pinger.aclose()
    with pytest.raises(ClosedError, match="the pinger is closed"):
        await pinger.ping("127.0.0.1")


def test_a_peer_keeps_its_losses_when_its_address_changes() -> None:
    addresses = {"peer": "127.0.0.1"}
    peers = Peers(addresses.__getitem__)
    before = peers.find("peer")
    for _ in range(8):
        before.window.add(lost=True)
    assert peers.find("peer") is before
    addresses["peer"] = "fe80::1%lo"
    after = peers.find("peer")
    assert (after.host, after.family) == ("fe80::1", socket.AF_INET6)
    assert peers.loss("peer") == 100


def test_an_address_needs_no_codec_of_host_names() -> None:
    """A process that gave up root's rights may be unable to load one."""
    program = (
        "import sys; from plexd.icmp.targets import Peers; "
        "Peers(str).find('fe80::1%lo'); sys.exit('encodings.idna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_only_so_many_peers_are_remembered() -> None:
    peers = Peers(lambda _: "127.0.0.1")
    for number in range(MOST_PEERS + 1):
        window = peers.find(str(number)).window
        if number < 2:
            for _ in range(8):
                window.add(lost=True)
    assert peers.loss("0") == -1
    assert peers.loss("1") == 100


def window_of(fates: str, size: int = 20) -> LossWindow:
    """Make a window of answered (``.``) and lost (``x``) probes."""
    window = LossWindow(size)
    for fate in fates:
        window.add(lost=fate == "x")
    return window


@pytest.mark.parametrize(
    ("fates", "percent"),
    [
        ("", -1),
        ("x......", -1),
        ("xxxxxxx", -1),
        ("x.......", 12.5),
        ("xxxxxxxx", 100),
        ("." * 12 + "x" * 20, 100),
        ("x" * 20 + ".", -1),  # a tunnel that came back begins again
        ("x" * 20 + "." * 7, -1),
        ("x" * 20 + "." * 8, 0),
        ("x" * 20 + ".......x", 12.5),
        ("." * 12 + "x" * 8 + "." * 8, 0),
        ("." * 12 + "x" * 7 + ".", 35),  # seven in a row are no outage
    ],
)
def test_the_loss_is_known_from_eight_probes_on_and_begins_again_after_an_outage(
    fates: str, percent: float
) -> None:
    assert window_of(fates).percent() == percent


def test_a_window_may_be_longer_and_never_shorter_than_eight() -> None:
    assert window_of("x" + "." * 39, size=40).percent() == 2.5
    with pytest.raises(ValueError, match="at least 8, not 7"):
        ICMPPinger(str, loss_window=7)


def test_sequence_numbers_are_unique_until_all_are_in_use() -> None:
    probes = Probes()
    target = Peers(lambda _: "127.0.0.1").find("peer")
    admitted = [Probe(target) for _ in range(1 << 16)]
    assert all(probes.admit(probe) for probe in admitted)
    assert len({probe.sequence for probe in admitted}) == 1 << 16
    assert not probes.admit(Probe(target))
    probes.end(admitted[77])
    assert probes.ended(admitted[77].sequence) is admitted[77]
    again = Probe(target)
    assert probes.admit(again)
    assert again.sequence == admitted[77].sequence


def test_ended_probes_are_remembered_for_a_while_only() -> None:
    probes = Probes()
    target = Peers(lambda _: "127.0.0.1").find("peer")
    ended = [Probe(target) for _ in range(1_000)]
    for probe in ended:
        probes.admit(probe)
        probes.end(probe)
    remembered = [probe for probe in ended if probes.ended(probe.sequence)]
    assert 256 <= len(remembered) <= 512
    assert remembered[-1] is ended[-1]


def test_a_family_this_kernel_does_not_speak_is_a_socket_error() -> None:
    with pytest.raises(SocketError, match="not supported"):
        open_socket(socket.AF_UNIX)


@pytest.mark.slow
@pytest.mark.root
@ROOT[1]
async def test_more_probes_than_numbers_fail_with_that_reason() -> None:
    async with ICMPPinger(lambda peer_id: peer_id) as pinger:
        await pinger.ping("127.0.0.1")
        channel = pinger._channels[socket.AF_INET]
        target = pinger._peers.find("127.0.0.1")
        while channel.probes.admit(Probe(target)):
            pass
        with pytest.raises(UndeliveredError, match="more probes are under way"):
            await pinger.ping("127.0.0.1")
