"""The ``peers`` of the configuration file: the mesh, if the control plane is not asked."""

from __future__ import annotations

import base64
import binascii
from ipaddress import ip_address
from typing import TYPE_CHECKING

from plexd.agent.config.yaml_tree import Mapping, Node, Scalar, Sequence
from plexd.agent.errors import SettingsError
from plexd.api import Peer
from plexd.text import nearest, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable


_KEY_BYTES = 32
_LONGEST_ID = 256


def read_peers(file: str, node: Node) -> tuple[Peer, ...]:
    """The peers listed in ``node``. Raises `SettingsError` naming line and field.

    Whatever is accepted here, the index of the run accepts as well.
    """
    if isinstance(node, Scalar) and node.is_null:
        return ()
    if not isinstance(node, Sequence):
        raise SettingsError(f"{file}:{node.line}", "peers", "expected a list of peers")
    peers: list[Peer] = []
    seen: dict[tuple[str, str], int] = {}
    for item in node.items:
        peer = _read_peer(file, item)
        for name, value in _compared(peer).items():
            if (name, value) in seen:
                reason = f"the peer on line {seen[name, value]} has the same one"
                raise SettingsError(f"{file}:{item.line}", f"peers.{name}", reason)
            seen[name, value] = item.line
        peers.append(peer)
    _index(f"{file}:{node.line}", peers)
    return tuple(peers)


def _compared(peer: Peer) -> dict[str, str]:
    """What no two peers may share; an address has many spellings."""
    address = str(ip_address(peer.mesh_ip))
    return {"id": peer.id, "public_key": peer.public_key, "mesh_ip": address}


def _index(place: str, peers: list[Peer]) -> None:
    if not peers:
        return
    from plexd.wireguard import PeerError, PeerIndex  # noqa: PLC0415 - only where peers are listed

    try:
        PeerIndex(peers)
    except PeerError as err:
        raise SettingsError(place, "peers", printable(str(err))) from None


def _read_peer(file: str, node: Node) -> Peer:
    place = f"{file}:{node.line}"
    if not isinstance(node, Mapping):
        raise SettingsError(place, "peers", "expected a peer with id, public_key and mesh_ip")
    for name, entry in node.entries.items():
        if name not in _FIELDS:
            reason = f"unknown key {quoted(name)}{nearest(name, _FIELDS)}"
            raise SettingsError(f"{file}:{entry.line}", "peers", reason)
    for name in _FIELDS:
        if name not in node.entries:
            raise SettingsError(place, "peers", f"this peer has no {name}")
    return Peer(**{name: _field(file, name, node.entries[name].value) for name in _FIELDS})


def _field(file: str, name: str, node: Node) -> str:
    try:
        if not isinstance(node, Scalar) or node.is_null:
            raise ValueError("expected text")  # noqa: TRY301 - one place makes the error
        return _FIELDS[name](node.text)
    except ValueError as err:
        raise SettingsError(f"{file}:{node.line}", f"peers.{name}", str(err)) from None


def _peer_id(text: str) -> str:
    if not text or len(text) > _LONGEST_ID or not text.isprintable():
        raise ValueError(f"expected 1 to {_LONGEST_ID} printable characters")
    return text


def parse_public_key(text: str) -> str:
    """A WireGuard key. Raises `ValueError` for anything else."""
    # The value is not quoted back: a private key looks the same and may have been pasted here.
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Other spellings of the same bytes would never be found on the interface.
    if len(raw) != _KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise ValueError("expected a WireGuard public key: 44 characters, as `wg` prints it")
    return text


def parse_mesh_ip(text: str) -> str:
    """An address without a prefix length. Raises `ValueError` for anything else."""
    try:
        ip_address(text)
    except ValueError:
        hint = "; leave out the prefix length" if "/" in text else ""
        raise ValueError(f"expected an IP address, found {quoted(text)}{hint}") from None
    return text


_FIELDS: dict[str, Callable[[str], str]] = {
    "id": _peer_id,
    "public_key": parse_public_key,
    "mesh_ip": parse_mesh_ip,
}
