"""Which addresses a machine may register with."""

from __future__ import annotations

import pytest

from plexd_server.cli.options import parse_mesh_ip, parse_network
from plexd_server.errors import NodeConflict
from plexd_server.registry.mesh_addresses import free_address, parse_address, refuse_unfit

SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::7f00:1",
    "fe80::1",
    "febf::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", SPECIAL)
@pytest.mark.parametrize("network", ["", "0.0.0.0/0", "::/0"])
def test_an_address_of_no_machine_is_refused_whatever_the_network(
    address: str, network: str
) -> None:
    with pytest.raises(NodeConflict, match=r"is not of the mesh network|cannot be the address"):
        refuse_unfit(parse_address(address), network)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.99.0.0", "10.99.0.0/16"),
        ("10.99.255.255", "10.99.0.0/16"),
        ("10.99.0.4", "10.99.0.4/30"),
        ("fd00:9::", "fd00:9::/64"),
        ("fe80::", "fe80::/64"),
        ("fd00:9::0:0", "fd00:9::/126"),
    ],
)
def test_the_networks_own_addresses_are_refused(address: str, network: str) -> None:
    with pytest.raises(NodeConflict, match="it is that of the network"):
        refuse_unfit(address, network)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.99.0.0", ""),
        ("10.99.0.0", "10.98.0.0/15"),
        ("10.99.0.0", "10.99.0.0/31"),
        ("10.99.0.7", "10.99.0.7/32"),
        ("10.99.0.1", "10.99.0.0/16"),
        ("240.0.0.1", ""),
        ("200::1", ""),
        ("fd00:9::ffff:ffff:ffff:ffff", "fd00:9::/64"),
        ("fd00:9::", "fd00:9::/127"),
        ("fe80::1", "fe80::/64"),
        ("2001:db8::1", ""),
    ],
)
def test_an_address_of_a_machine_passes(address: str, network: str) -> None:
    refuse_unfit(address, network)


@pytest.mark.parametrize("text", ["fd00::2%x", "fd00::2%x y", "fe80::1%eth0", "fd00::2%", "%"])
def test_an_address_with_a_zone_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="has no zone"):
        parse_address(text)
    with pytest.raises(ValueError, match="is no IP address, such as"):
        parse_mesh_ip(text)


@pytest.mark.parametrize("text", ["FD00::2", "fd00:0:0::2", "fd00::0.0.0.2", "fd00::0002"])
def test_two_spellings_are_one_address(text: str) -> None:
    assert parse_address(text) == "fd00::2"


def test_a_node_made_by_hand_has_an_address_of_a_machine_as_well() -> None:
    with pytest.raises(NodeConflict, match="it is loopback"):
        parse_mesh_ip("127.0.0.1")


@pytest.mark.parametrize(
    "network",
    [
        "127.0.0.0/8",
        "126.0.0.0/7",
        "169.254.0.0/16",
        "224.0.0.0/24",
        "255.255.255.255/32",
        "0.0.0.0/0",
        "::/0",
        "::1/128",
        "::ffff:10.0.0.0/104",
        "ff02::/64",
    ],
)
def test_a_network_of_which_no_node_can_be_is_refused_at_the_start(network: str) -> None:
    with pytest.raises(NodeConflict, match=" cannot be the network of a mesh: "):
        parse_network(network)


@pytest.mark.parametrize("network", ["", "10.99.0.0/16", "100.64.0.0/10", "fd00::/64", "fe80::/64"])
def test_a_network_of_nodes_passes(network: str) -> None:
    assert parse_network(network) == network


def test_the_free_addresses_are_those_that_pass() -> None:
    for network in ("10.99.0.0/30", "10.99.0.0/31", "fd00::/126", "fd00::/127"):
        taken = list[str]()
        for _ in range(2):
            taken.append(free_address(network, taken))
            refuse_unfit(taken[-1], network)


def test_a_network_without_a_free_address_says_so() -> None:
    with pytest.raises(NodeConflict, match="has no free address"):
        free_address("10.99.0.0/30", ["10.99.0.1", "10.99.0.2"])
