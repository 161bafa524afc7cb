"""Where each peer is, and how many of its latest probes were lost."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeAlias

from plexd.icmp.errors import UnknownPeerError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PEERS = 65_536
WINDOW_PROBES = 20
NEEDED_PROBES = 8
_OUTAGE = (1 << NEEDED_PROBES) - 1
_UNKNOWN = -1.0

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class LossWindow:
    """The fate of the latest probes, 20 by default: five minutes at one every 15 s.

    Only probes that have ended are in it: answered, or lost (no answer in time, refused on the
    way or by this kernel). One in flight, cancelled, or cut off by closing is neither. The window
    begins again with the first answer after an outage of at least eight probes: what was lost
    while there was no tunnel says nothing about the one that came back.
    """

    __slots__ = ("_count", "_lost", "_size")

    def __init__(self, size: int = WINDOW_PROBES) -> None:
        self._size = size
        self._lost = 0  # one bit a probe, the latest lowest
        self._count = 0

    def add(self, *, lost: bool) -> None:
        """Add the next probe and drop the oldest one."""
        if not lost and self._lost & _OUTAGE == _OUTAGE:
            self._lost = self._count = 0
        if lost or self._lost:
            self._lost = (self._lost << 1 | lost) & ((1 << self._size) - 1)
        if self._count < self._size:
            self._count += 1

    def percent(self) -> float:
        """Return 0 to 100; -1 as long as fewer than eight probes have ended."""
        return self._lost.bit_count() * 100 / self._count if self._is_known else _UNKNOWN

    @property
    def _is_known(self) -> bool:
        return self._count >= NEEDED_PROBES


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

    At most 65,536 peers are remembered; the one remembered first is forgotten first.
    """

    def __init__(self, resolve: Callable[[str], str], window: int = WINDOW_PROBES) -> None:
        self._resolve = resolve
        self._window = window
        self._targets: dict[str, Target] = {}

    def find(self, peer_id: str) -> Target:
        """Return the peer at its present address; raise `UnknownPeerError` if none is known."""
        try:
            text = self._resolve(peer_id)
        except LookupError as err:
            raise UnknownPeerError(peer_id, "no address is known") from err
        target = self._targets.get(peer_id)
        if target is not None and target.text == text:
            return target
        return self._remember(peer_id, text, target)

    def loss(self, peer_id: str) -> float:
        """Return how many percent of the peer's latest probes were lost, or -1."""
        target = self._targets.get(peer_id)
        return -1.0 if target is None else target.window.percent()

    def _remember(self, peer_id: str, text: str, before: Target | None) -> Target:
        try:
            window = LossWindow(self._window) if before is None else before.window
            target = Target(peer_id, text, window)
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
    # As bytes, since text would first load a codec of host names: half a megabyte, which cannot be
    # read after root's rights were given up if the interpreter lies in root's home.
    host, flags = text.encode("ascii"), socket.AI_NUMERICHOST
    found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_DGRAM, 0, flags)
    return socket.AF_INET6, found[0][4]
