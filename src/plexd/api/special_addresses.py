"""Addresses that no node of a mesh has.

Every node pings the address of every other one, so neither the control plane may give such an
address nor a node may believe one.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Special-purpose addresses (RFC 6890) that name no machine of a mesh. ::/8 has the IPv6 forms of
# IPv4 addresses: mapped, compatible, translated.
_SPECIAL: Final = {
    ipaddress.ip_network(network): what
    for network, what in {
        "0.0.0.0/8": "unspecified",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "224.0.0.0/4": "multicast",
        "255.255.255.255/32": "broadcast",
        "::/128": "unspecified",
        "::1/128": "loopback",
        "::/8": "IPv4 in IPv6 form",
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
    }.items()
}
_OF_VERSION: Final = {
    version: [(network, what) for network, what in _SPECIAL.items() if network.version == version]
    for version in (4, 6)
}


def special_purpose(address: Address) -> str:
    """Return what a special-purpose address is, such as ``loopback``; nothing for any other."""
    of_its_version = _OF_VERSION[address.version]
    return next((what for network, what in of_its_version if address in network), "")


def ends_of(network: Network) -> frozenset[Address]:
    """Return the addresses that mean ``network`` itself or all of it, which are none of a machine.

    In IPv6 that is the first one (RFC 4291, 2.6.1), in IPv4 the last one as well; a network of one
    or two addresses has none.
    """
    if network.num_addresses <= 2:
        return frozenset()
    if network.version == 4:
        return frozenset({network.network_address, network.broadcast_address})
    return frozenset({network.network_address})
