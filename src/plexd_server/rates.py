"""How often something may happen, for each of many keys: token buckets in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from litestar import Request

    from plexd.clock import Clock

__all__ = ["Buckets", "Recent", "address_of", "retry_after"]

_IPV6_NETWORK: Final = 64  # what one household or machine is given whole


class Buckets:
    """``burst`` at once and then ``rate`` a second, for each key.

    At most ``size`` keys are known: the one that was not heard of for longest makes room, and
    begins with a full bucket should it come again.
    """

    def __init__(self, clock: Clock, *, rate: float, burst: float, size: int = 10_000) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._size = size
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """0 and it is taken, or the seconds until there is one."""
        now = self._clock.monotonic()
        level = self._level(key, now)
        if level < 1:
            return (1 - level) / self._rate
        self._levels[key] = (level - 1, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._size:
            self._levels.popitem(last=False)
        return 0.0

    def wait(self, key: Hashable) -> float:
        """The seconds until there is one, without taking it."""
        return max(0.0, (1 - self._level(key, self._clock.monotonic())) / self._rate)

    def _level(self, key: Hashable, now: float) -> float:
        level, since = self._levels.get(key, (self._burst, now))
        return min(self._burst, level + (now - since) * self._rate)


class Recent:
    """A set that forgets what was added or found longest ago beyond ``size`` members."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._members: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, member: Hashable) -> bool:
        return member in self._members

    def add(self, member: Hashable) -> None:
        """Have it in the set, as the newest."""
        self._members[member] = None
        self._members.move_to_end(member)
        if len(self._members) > self._size:
            self._members.popitem(last=False)


def address_of(request: Request[Any, Any, Any]) -> str:
    """Who is to be counted as one sender: an IPv4 address, or an IPv6 network of 64 bits."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _IPV6_NETWORK << _IPV6_NETWORK))


def retry_after(seconds: float) -> dict[str, str]:
    """The header of a refusal that stands for so long; at least a second, at most an hour."""
    return {"Retry-After": str(min(3600, max(1, math.ceil(seconds))))}
