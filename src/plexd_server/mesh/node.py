"""The row of one node: its newest numbers, its rhythm, its clock, and what it reads of peers. Pure.

A row is a plain value that MessagePack can hold; `judge` makes the next one. Stamps are epoch
seconds of the node's clock, arrivals are by the server's clocks.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

from plexd.api import SystemStats  # noqa: TC001 -- msgspec reads the annotations
from plexd_server.mesh.arrivals import Arrival, Rhythm
from plexd_server.mesh.peer import FAR_PAST, PeerRow

HISTORY_MINUTES: Final = 60
# A peer that the node's readings leave out for so long is no peer of it any more.
EXPIRE_SECONDS: Final = 3600.0


# What the live mesh keeps is in no cycles, so the garbage collector need not look at it (gc=False):
# it would take as long as a hundred callbacks, in one of them.
class NodeRow(Struct, gc=False, kw_only=True, omit_defaults=True):
    """What is known of a node and its peers.

    Attributes:
        node_id: the node.
        arrivals: its latest arrivals, oldest first.
        rhythm: what follows from them, once somebody asks; None after each arrival.
        first, newest: the first and the newest stamp since the row began.
        began: when the row began, in steady seconds.
        system, system_at: its newest system numbers, and their stamp.
        history: a whole percentage of the processor for each minute, the newest last.
        peers: what it reads of each peer, by the name it reads them by.
        foreign: how many of them were no registered nodes when they were first read.
        left_out: readings of peers for which there was no room.
        swept_at: when room was last looked for in vain, in steady seconds.
    """

    node_id: str
    arrivals: tuple[Arrival, ...] = ()
    rhythm: Rhythm | None = None
    first: float = FAR_PAST
    newest: float = FAR_PAST
    began: float = FAR_PAST
    system: SystemStats | None = None
    system_at: float = FAR_PAST
    history: tuple[tuple[int, int], ...] = ()
    peers: dict[str, PeerRow] = field(default_factory=dict)
    foreign: int = 0
    left_out: int = 0
    swept_at: float = FAR_PAST

    @property
    def offset(self) -> float:
        """The seconds by which its clock is ahead."""
        return self._rhythm().clock_offset

    @property
    def silent_after(self) -> float:
        """The seconds without a report after which it counts as silent."""
        return self._rhythm().silent_after

    def _rhythm(self) -> Rhythm:
        if self.rhythm is None:
            self.rhythm = Rhythm.of(self.arrivals)
        return self.rhythm
