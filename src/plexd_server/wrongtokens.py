"""Guessing tokens is slow: an address that presents many wrong ones has to wait.

While it waits nothing it presents is even compared, or guessing would go on in the dark. What was
right before passes: the neighbours of somebody who guesses, behind one address, are not shut out.
The same wrong token again and again is no guessing but a node with an old identity, and counts
once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from plexd_server.problems import Problem
from plexd_server.rates import Buckets, Recent, retry_after

if TYPE_CHECKING:
    from plexd.clock import Clock

__all__ = ["WrongTokens"]

_LOG = logging.getLogger(__name__)
_BURST: Final = 30
_PER_SECOND: Final = 0.2
_RIGHT_ONES: Final = 50_000


class WrongTokens:
    """Counts wrong tokens by address: thirty at once, then one in five seconds."""

    def __init__(self, clock: Clock) -> None:
        self._left = Buckets(clock, rate=_PER_SECOND, burst=_BURST)
        self._right = Recent(_RIGHT_ONES)
        self._wrong = Recent()

    def refuse_blocked(self, address: str, token_hash: bytes) -> None:
        """Raise `Problem` 429 if the address has to wait and the token was never right."""
        if token_hash in self._right:
            return
        if wait := self._left.wait(address):
            raise Problem(429, "too many wrong tokens", headers=retry_after(wait))

    def note_right(self, token_hash: bytes) -> None:
        """This one was right."""
        self._right.add(token_hash)

    def note_wrong(self, address: str, token_hash: bytes) -> None:
        """This one was wrong."""
        if (address, token_hash) in self._wrong:
            return
        self._wrong.add((address, token_hash))
        self._left.take(address)
        if self._left.wait(address):
            _LOG.warning("too many wrong tokens", extra={"address": address})
