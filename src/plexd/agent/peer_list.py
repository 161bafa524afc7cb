"""A list of peers from the control plane, and what of it this node uses.

Any machine of the mesh may have had a say in its entry, and this node pings every address. So an
entry that cannot be used costs itself only, and no address is used that is none of another node.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING, Final

from plexd.agent.interface import read_networks
from plexd.api import Peer, ends_of, special_purpose
from plexd.text import quoted
from plexd.wireguard import PeerError, PeerTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from plexd.log_once import LogOnce

MOST_PEERS: Final = 10_000
_LONGEST_ID: Final = 256
_LONGEST_REASON: Final = 300
_MOST_NAMED: Final = 5  # nobody reads a list of 10,000 bad peers
_STRIDE: Final = 50  # entries between two turns of the event loop, one or two milliseconds


class PeerList:
    """The ``peers`` that can be used and their ``table``, filled entry by entry; 10,000 at most.

    ``check`` raises `PeerError` for a peer that is refused though nothing in it is unreadable.
    """

    def __init__(self, check: Callable[[Peer], None] | None = None) -> None:
        self.peers: list[Peer] = []
        self.table = PeerTable()
        self._check = check
        self._left_out = 0
        self._beyond = 0
        self._reasons: list[str] = []

    def add(self, entry: object) -> None:
        """Add one entry, or count it among those that are left out."""
        if len(self.table) >= MOST_PEERS:
            self._beyond += 1
            return
        try:
            peer = _readable(entry)
            if self._check is not None:
                self._check(peer)
            self.table.add(peer)
            self.peers.append(peer)
        except PeerError as err:
            self._left_out += 1
            if len(self._reasons) < _MOST_NAMED:
                self._reasons.append(str(err)[:_LONGEST_REASON])

    @property
    def left_out(self) -> int:
        """How many entries are not in the table."""
        return self._left_out + self._beyond

    @property
    def error(self) -> str:
        """Why; a few of the entries are named."""
        rest = self._left_out - len(self._reasons)
        more = [f"and {rest} more"] if rest else []
        if self._beyond:
            more.append(f"{self._beyond} beyond the first {MOST_PEERS}")
        return "; ".join([*self._reasons, *more])

    def warn(self, warnings: LogOnce) -> None:
        """Log what is left out, if anything is."""
        if self.left_out:
            warnings.warn("peers left out", "", count=self.left_out, error=self.error)


class OwnMesh:
    """What this node knows of its mesh, and so which addresses can be those of other nodes."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._ends = {end for network in read_networks(interface) for end in ends_of(network)}

    def check(self, peer: Peer) -> None:
        """Raise `PeerError` for an address that no other node can have."""
        try:
            reason = self._unfit(peer.mesh_ip)
        except ValueError:
            reason = "is no address"
        if reason:
            raise PeerError(f"peer {peer.id!r}: mesh_ip {quoted(peer.mesh_ip)} {reason}")

    def _unfit(self, text: str) -> str:
        found = ip_address(text.partition("/")[0])  # a third of the time of `ip_interface`
        kind = special_purpose(found)
        if isinstance(found, IPv6Address) and found.scope_id is not None:
            is_ours = kind == "link-local" and found.scope_id == self._interface
            return "" if is_ours else "has the zone of another interface than the mesh's"
        if not kind and (found in self._ends or ("/" in text and _is_an_end(text))):
            kind = "that of its network itself"
        return kind and f"cannot be that of a node: it is {kind}"


def _is_an_end(text: str) -> bool:
    found = ip_interface(text)
    return found.ip in ends_of(found.network)


async def read_list(entries: Iterable[object], interface: str) -> PeerList:
    """Read a control plane's list; other tasks run in between. ``interface`` is the mesh's."""
    found = PeerList(OwnMesh(interface).check)
    for count, entry in enumerate(entries, start=1):
        found.add(entry)
        if count % _STRIDE == 0:
            await asyncio.sleep(0)
    return found


def _readable(entry: object) -> Peer:
    if not isinstance(entry, Peer):
        raise PeerError(f"an entry that is no peer but {type(entry).__name__}")
    for field in entry.__struct_fields__:
        if not isinstance(getattr(entry, field), str):
            raise PeerError(f"a peer whose {field} is no text")
    if not (0 < len(entry.id) <= _LONGEST_ID and entry.id.isprintable()):
        raise PeerError(
            f"peer {quoted(entry.id)}: an id is 1 to {_LONGEST_ID} printable characters"
        )
    return entry
