"""A bound on guessing: an address that sends many wrong tokens has to wait for further answers.

A token is looked up first, whatever came from its address before: a right one always passes, so
nobody behind a shared address is locked out by a neighbour. Only the answers to wrong ones are
slowed. The same wrong token again and again counts once: it is a node with an old identity, not
guessing.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from plexd.rates import TokenBuckets
from plexd_server.web.problems import Problem
from plexd_server.web.shares import sender_in

if TYPE_CHECKING:
    from collections.abc import Hashable

    from litestar import Request

    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_BURST: Final = 30
_PER_SECOND: Final = 0.2


class WrongTokens:
    """Counts wrong tokens for each address: thirty at once, then one in five seconds."""

    def __init__(self, clock: Clock) -> None:
        self._left = TokenBuckets(clock, rate=_PER_SECOND, burst=_BURST)
        self._wrong = Recent()

    def count(self, address: str, token_hash: bytes) -> None:
        """Count a wrong token. Raises `Problem` 429 for one too many."""
        if (address, token_hash) in self._wrong:
            return
        if wait := self._left.take(address):
            raise Problem(429, "too many wrong tokens", headers=retry_after(wait))
        self._wrong.add((address, token_hash))
        if self._left.wait(address):
            _LOG.warning("too many wrong tokens", extra={"address": address})


class Recent:
    """A set of at most ``size`` members; the one added longest ago goes first."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._members: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, member: Hashable) -> bool:
        return member in self._members

    def add(self, member: Hashable) -> None:
        """Add the member, or make it the newest again."""
        self._members[member] = None
        self._members.move_to_end(member)
        if len(self._members) > self._size:
            self._members.popitem(last=False)


def address_of(request: Request[Any, Any, Any]) -> str:
    """Return the address that counts as one sender (`sender_of`)."""
    return sender_in(request.scope)


def retry_after(seconds: float) -> dict[str, str]:
    """Make the header of a refusal that lasts so long: a second at least, an hour at most."""
    return {"Retry-After": str(min(3600, max(1, math.ceil(seconds))))}
