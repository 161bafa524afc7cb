"""Who counts as one sender, and how much of what all share one sender may have."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from litestar.types import Scope

_IPV6_NETWORK: Final = 64  # the bits that belong to one household or machine


class Shares:
    """Places for all senders, of which one sender may have as many as it leaves free.

    So one sender alone gets half of them, and each one that follows half of what is free. When all
    want many, two get a third each and nine a tenth. (Dynamic thresholds: Choudhury and Hahne,
    IEEE/ACM Transactions on Networking 6(2), 1998.)
    """

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._taken = Counter[str]()

    def resize(self, total: int) -> None:
        """Have so many places in all; those that are taken too many are given back in time."""
        self._free += total - self._total
        self._total = total

    def take(self, sender: str | None, places: int = 1) -> bool:
        """Take ``places`` for the sender, or none and return False.

        ``None`` is a sender without a bound of its own, such as a proxy for many clients.
        """
        own = 0 if sender is None else self._taken[sender]
        if own + places > self._free:
            return False
        self._free -= places
        if sender is not None:
            self._taken[sender] = own + places
        return True

    def give_back(self, sender: str | None, places: int = 1) -> None:
        """Give back what the sender took, at once or in parts."""
        self._free += places
        if sender is None:
            return
        self._taken[sender] -= places
        if not self._taken[sender]:
            del self._taken[sender]


def sender_of(host: str) -> str:
    """Return what counts as one sender: an IPv4 address, or an IPv6 /64 network.

    A text that is no address, as of a Unix socket, stays what it is.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _IPV6_NETWORK << _IPV6_NETWORK))


def sender_in(scope: Scope) -> str:
    """Return the sender of a request; empty for a Unix socket without a trusted proxy."""
    client = scope.get("client")
    return sender_of(client[0]) if client else ""
