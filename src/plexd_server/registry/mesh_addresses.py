"""Addresses of nodes: which can be one, and the next free one of the mesh's network.

Every node pings every address, so a machine may not name just any.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from plexd_server.errors import NodeConflict

if TYPE_CHECKING:
    from collections.abc import Container

    MeshAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
    MeshNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Special-purpose addresses (RFC 6890) that name no machine of a mesh. ::/8 has the IPv6 forms of
# IPv4 addresses: mapped, compatible, translated.
_NO_NODES: Final = {
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
        "ff00::/8": "multicast",
    }.items()
}
_LINK_LOCAL: Final = ipaddress.IPv6Network("fe80::/10")


def parse_address(text: str) -> str:
    """Return an address in its one usual form, empty for none. Raises `ValueError`.

    A zone (``%eth0``) is refused: it names an interface of one machine, and to all others it makes
    two addresses of one.
    """
    if "%" in text:
        raise ValueError("an address in the mesh has no zone")
    return str(ipaddress.ip_address(text)) if text else ""


def refuse_unfit(address: str, network: str) -> None:
    """Raise `NodeConflict` for an address that no node can have in the mesh's network.

    ``network`` may be empty. ``fe80::`` is an address of nodes only if the network is one of it.
    """
    parsed = ipaddress.ip_address(address)
    mesh = ipaddress.ip_network(network) if network else None
    if mesh is not None and parsed not in mesh:
        raise NodeConflict(f"the mesh address {address} is not of the mesh network {network}")
    kinds = [what for special, what in _NO_NODES.items() if parsed in special]
    if parsed in _LINK_LOCAL and not (mesh is not None and _is_link_local(mesh)):
        kinds.append("link-local")
    if mesh is not None and parsed in _ends(mesh):
        kinds.append(f"that of the network {network} itself")
    if kinds:
        raise NodeConflict(f"{address} cannot be the address of a node: it is {kinds[0]}")


def free_address(network: str, taken: Container[str]) -> str:
    """Return the lowest address of the network that is not taken. Raises `NodeConflict`."""
    for address in map(str, ipaddress.ip_network(network).hosts()):
        if address not in taken:
            return address
    raise NodeConflict(f"the mesh network {network} has no free address")


def _is_link_local(mesh: MeshNetwork) -> bool:
    return isinstance(mesh, ipaddress.IPv6Network) and mesh.subnet_of(_LINK_LOCAL)


def _ends(mesh: MeshNetwork) -> set[MeshAddress]:
    """The addresses that mean the network itself (RFC 4291, 2.6.1) or, in IPv4, all of it."""
    if mesh.num_addresses <= 2:
        return set()
    ends: set[MeshAddress] = {mesh.network_address}
    return ends | {mesh.broadcast_address} if mesh.version == 4 else ends
