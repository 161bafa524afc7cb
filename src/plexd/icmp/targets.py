"""Where peers are, and what is remembered of each."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeAlias

from plexd.icmp.errors import UnknownPeerError
from plexd.icmp.window import LossWindow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_PEERS", "Peers", "Target"]

MOST_PEERS = 65_536

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class Target:
    """A peer at an address."""

    __slots__ = ("family", "host", "peer_id", "socket_address", "text", "window")

    def __init__(self, peer_id: str, text: str, window: LossWindow) -> None:
        self.peer_id = peer_id
        self.text = text
        self.window = window
        family, self.socket_address = _parse(text)
        self.family = int(family)  # an enumeration's member is slow to find in a dictionary
        self.host = str(self.socket_address[0]).partition("%")[0]


class Peers:
    """Asks for a peer's address at each ping, and keeps its loss window across changes of it.

    At most 65,536 peers are remembered; the one known for longest is forgotten first.
    """

    def __init__(self, resolve: Callable[[str], str]) -> None:
        self._resolve = resolve
        self._targets: dict[str, Target] = {}

    def find(self, peer_id: str) -> Target:
        """The peer where it is now; `UnknownPeerError` if nobody can tell."""
        try:
            text = self._resolve(peer_id)
        except LookupError as err:
            raise UnknownPeerError(peer_id, "no address is known") from err
        target = self._targets.get(peer_id)
        if target is not None and target.text == text:
            return target
        return self._remember(peer_id, text, target)

    def loss(self, peer_id: str) -> float:
        """Percent of the peer's latest probes, or -1."""
        target = self._targets.get(peer_id)
        return -1.0 if target is None else target.window.percent()

    def _remember(self, peer_id: str, text: str, before: Target | None) -> Target:
        try:
            target = Target(peer_id, text, LossWindow() if before is None else before.window)
        except (OSError, ValueError) as err:
            raise UnknownPeerError(peer_id, f"{text!r} is no IP address") from err
        if before is None and len(self._targets) >= MOST_PEERS:
            del self._targets[next(iter(self._targets))]
        self._targets[peer_id] = target
        return target


def _parse(text: str) -> tuple[socket.AddressFamily, SocketAddress]:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        pass  # IPv6, possibly with a scope
    else:
        return socket.AF_INET, (text, 0)
    # As bytes, since text would first load a codec of host names: half a megabyte, and no longer
    # to be had where root's rights were given up and the interpreter lies in root's home.
    host, flags = text.encode("ascii"), socket.AI_NUMERICHOST
    found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_DGRAM, 0, flags)
    return socket.AF_INET6, found[0][4]
