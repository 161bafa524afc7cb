"""The entries of a list of peers, each decoded for itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from plexd.api.wire import Peer

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRIDE: Final = 1000  # entries between two turns of the event loop, about a millisecond
_MOST_NAMED: Final = 5  # nobody reads a list of 10,000 bad entries

_DECODER: Final = msgspec.json.Decoder(Peer)


class PeerEntries(msgspec.Struct):
    """The ``peers`` that could be decoded, and how many entries could not.

    ``error`` says why of the first five of those.
    """

    peers: list[Peer] = []
    left_out: int = 0
    error: str = ""

    def add(self, entry: msgspec.Raw, number: int) -> None:
        """Decode one more entry, the one at position ``number``, counted from 1."""
        try:
            self.peers.append(_DECODER.decode(entry))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            self.left_out += 1
            if self.left_out <= _MOST_NAMED:
                self.error += f"{'; ' * bool(self.error)}entry {number}: {err}"


async def decode_peers(entries: Sequence[msgspec.Raw]) -> PeerEntries:
    """Decode ``entries`` one by one; other tasks run in between.

    An entry that is no peer costs itself only: one machine of the mesh must not be able to keep
    all others from learning their peers.
    """
    found = PeerEntries()
    for number, entry in enumerate(entries, start=1):
        found.add(entry, number)
        if number % _STRIDE == 0:
            await asyncio.sleep(0)
    return found
