"""Which peer has a public key, and its address in the mesh."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd.wireguard.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plexd.api import Peer

_KEY_BYTES: Final = 32
_MOST_NAMED: Final = 5  # nobody reads a list of 10,000 bad peers


class _Snapshot(NamedTuple):
    addresses: dict[str, IPv4Address | IPv6Address]
    ids: dict[str, str]


class PeerIndex:
    """Peer id <-> public key <-> mesh address of the mesh's other nodes.

    Public keys are base64 as ``wg`` prints them. A mesh address may carry a prefix length, as
    interfaces' addresses are written (``10.0.0.1/32``); it is dropped. Loading replaces the whole
    index at once, so that no reader sees half of a list.
    """

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._tables = _tabled(peers)

    def load(self, peers: Iterable[Peer]) -> None:
        """Replace all peers by these.

        Raises `PeerError`, naming what is wrong, and keeps the peers of before if any id, key or
        address is unreadable or belongs to two.
        """
        self._tables = _tabled(peers)

    def peer_ids(self) -> Sequence[str]:
        """Return every peer, in the order of the list loaded last."""
        return tuple(self._tables.addresses)

    def address(self, peer_id: str) -> IPv4Address | IPv6Address:
        """Return the peer's address in the mesh. Raises `PeerError` for an unknown peer."""
        try:
            return self._tables.addresses[peer_id]
        except KeyError as err:
            raise PeerError(f"no peer is called {peer_id!r}") from err

    def peer_id(self, public_key: str) -> str | None:
        """Return the peer that has this key; None for a stranger."""
        return self._tables.ids.get(public_key)


def _tabled(peers: Iterable[Peer]) -> _Snapshot:
    tables = _Snapshot({}, {})
    places: dict[IPv4Address | IPv6Address, str] = {}
    wrong: list[str] = []
    for peer in peers:
        try:
            address = _checked(peer, tables, places)
        except PeerError as err:
            wrong.append(str(err))
            continue
        tables.addresses[peer.id] = address
        tables.ids[peer.public_key] = peer.id
        places[address] = peer.id
    if wrong:
        rest = len(wrong) - _MOST_NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        raise PeerError("; ".join(wrong[:_MOST_NAMED]) + more)
    return tables


def _checked(
    peer: Peer, tables: _Snapshot, places: dict[IPv4Address | IPv6Address, str]
) -> IPv4Address | IPv6Address:
    if not peer.id:
        raise PeerError(f"a peer without an id (public key {peer.public_key!r})")
    if peer.id in tables.addresses:
        raise PeerError(f"peer {peer.id!r}: there are two of this id")
    if not _is_key(peer.public_key):
        raise PeerError(f"peer {peer.id!r}: public key is not the base64 of 32 bytes")
    if peer.public_key in tables.ids:
        raise PeerError(f"peer {peer.id!r}: public key is that of {tables.ids[peer.public_key]!r}")
    address = _address(peer)
    if address in places:
        raise PeerError(f"peer {peer.id!r}: mesh address {address} is that of {places[address]!r}")
    return address


def _is_key(text: str) -> bool:
    try:
        raw = b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return False
    # Other spellings of the same bytes would never be found.
    return len(raw) == _KEY_BYTES and b64encode(raw).decode() == text


def _address(peer: Peer) -> IPv4Address | IPv6Address:
    try:
        return ip_interface(peer.mesh_ip).ip
    except ValueError as err:
        raise PeerError(f"peer {peer.id!r}: mesh_ip {peer.mesh_ip!r} is no address") from err
