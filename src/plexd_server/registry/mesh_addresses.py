"""Addresses of nodes: which can be one, and the next free one of the mesh's network.

Every node pings every address, so a machine may not name just any.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from plexd.api import ends_of, special_purpose
from plexd_server.errors import NodeConflict

if TYPE_CHECKING:
    from collections.abc import Container

    MeshNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

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
    kind = special_purpose(parsed)
    if kind == "link-local" and mesh is not None and _is_link_local(mesh):
        kind = ""
    if mesh is not None and parsed in ends_of(mesh):
        kind = kind or f"that of the network {network} itself"
    if kind:
        raise NodeConflict(f"{address} cannot be the address of a node: it is {kind}")


def refuse_unfit_network(network: MeshNetwork) -> None:
    """Raise `NodeConflict` for a network of addresses that no node can have; ``fe80::`` is fine."""
    for address in (network.network_address, network.broadcast_address):
        kind = "" if _is_link_local(network) else special_purpose(address)
        if kind:
            raise NodeConflict(f"{network} cannot be the network of a mesh: {address} is {kind}")


def free_address(network: str, taken: Container[str]) -> str:
    """Return the lowest address of the network that is not taken. Raises `NodeConflict`."""
    for address in map(str, ipaddress.ip_network(network).hosts()):
        if address not in taken:
            return address
    raise NodeConflict(f"the mesh network {network} has no free address")


def _is_link_local(mesh: MeshNetwork) -> bool:
    return isinstance(mesh, ipaddress.IPv6Network) and mesh.subnet_of(_LINK_LOCAL)
