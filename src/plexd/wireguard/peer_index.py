"""Which peer has a public key, and its address in the mesh."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING, Final

from plexd.wireguard.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plexd.api import Peer

_KEY_BYTES: Final = 32
_MOST_NAMED: Final = 5  # nobody reads a list of 10,000 bad peers


class PeerTable:
    """Peers by their ids, keys and addresses, added one by one.

    No two have the same id, key or address: of those the first one stays.
    """

    __slots__ = ("_places", "addresses", "ids")

    def __init__(self) -> None:
        self.addresses: dict[str, IPv4Address | IPv6Address] = {}  # by peer id
        self.ids: dict[str, str] = {}  # by public key
        self._places: dict[IPv4Address | IPv6Address, str] = {}

    def __len__(self) -> int:
        return len(self.addresses)

    def add(self, peer: Peer) -> None:
        """Add one more. Raises `PeerError`, naming what is wrong, and leaves the table as it is."""
        self._check(peer)
        address = _address(peer)
        if address in self._places:
            raise PeerError(
                f"peer {peer.id!r}: mesh address {address} is that of {self._places[address]!r}"
            )
        self.addresses[peer.id] = address
        self.ids[peer.public_key] = peer.id
        self._places[address] = peer.id

    def _check(self, peer: Peer) -> None:
        if not peer.id:
            raise PeerError(f"a peer without an id (public key {peer.public_key!r})")
        if peer.id in self.addresses:
            raise PeerError(f"peer {peer.id!r}: there are two of this id")
        if not _is_key(peer.public_key):
            raise PeerError(f"peer {peer.id!r}: public key is not the base64 of 32 bytes")
        if peer.public_key in self.ids:
            other = self.ids[peer.public_key]
            raise PeerError(f"peer {peer.id!r}: public key is that of {other!r}")


class PeerIndex:
    """Peer id <-> public key <-> mesh address of the mesh's other nodes.

    Public keys are base64 as ``wg`` prints them. A mesh address may carry a prefix length, as
    interfaces' addresses are written (``10.0.0.1/32``); it is dropped. So is a zone, but for that
    of a link-local address (``fe80::1%plexd0``), which nothing can be sent to without it. Loading
    replaces the whole index at once, so that no reader sees half of a list.
    """

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._table = _filled(peers)

    def load(self, peers: Iterable[Peer]) -> None:
        """Replace all peers by these.

        Raises `PeerError`, naming what is wrong, and keeps the peers of before if any id, key or
        address is unreadable or belongs to two.
        """
        self._table = _filled(peers)

    def replace(self, table: PeerTable) -> None:
        """Replace all peers by those of ``table``, to which nothing is added any more."""
        self._table = table

    def peer_ids(self) -> Sequence[str]:
        """Return every peer, in the order of the list loaded last."""
        return tuple(self._table.addresses)

    def address(self, peer_id: str) -> IPv4Address | IPv6Address:
        """Return the peer's address in the mesh. Raises `PeerError` for an unknown peer."""
        try:
            return self._table.addresses[peer_id]
        except KeyError as err:
            raise PeerError(f"no peer is called {peer_id!r}") from err

    def peer_id(self, public_key: str) -> str | None:
        """Return the peer that has this key; None for a stranger."""
        return self._table.ids.get(public_key)


def _filled(peers: Iterable[Peer]) -> PeerTable:
    table = PeerTable()
    wrong: list[str] = []
    for peer in peers:
        try:
            table.add(peer)
        except PeerError as err:
            wrong.append(str(err))
    if wrong:
        rest = len(wrong) - _MOST_NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        raise PeerError("; ".join(wrong[:_MOST_NAMED]) + more)
    return table


def _is_key(text: str) -> bool:
    try:
        raw = b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return False
    # Other spellings of the same bytes would never be found.
    return len(raw) == _KEY_BYTES and b64encode(raw).decode() == text


def _address(peer: Peer) -> IPv4Address | IPv6Address:
    text, slash, _ = peer.mesh_ip.partition("/")
    try:
        if slash:  # only then: it takes three times as long, which counts in a large mesh
            ip_interface(peer.mesh_ip)
        found = ip_address(text)
    except ValueError as err:
        raise PeerError(f"peer {peer.id!r}: mesh_ip {peer.mesh_ip!r} is no address") from err
    if isinstance(found, IPv6Address) and found.scope_id and not found.is_link_local:
        return IPv6Address(int(found))
    return found
