"""How a view's state follows its readings without flapping. Pure.

A better state counts at once: an answer is an answer. A worse state needs two readings in a row, or
one that is proof: a single lost ping is no outage. The worse state then counts from the first.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from plexd_server.mesh.classify import SEVERITY, State, Verdict

# After so long without a reading, the last state says nothing about the next one.
_FORGET_SECONDS: Final = 600.0


class HeldState(Struct, frozen=True, gc=False):
    """A verdict, since when its state holds and when it was last confirmed, in epoch seconds.

    It may hold for longer if it ``is_first``: before it, there was no reading. ``worse_since`` is
    the time of a reading for a worse state that needs a second one.
    """

    verdict: Verdict
    since: float
    at: float
    worse_since: float | None = None
    is_first: bool = False

    @property
    def state(self) -> State:
        """The state that holds."""
        return self.verdict.state


def next_state(held: HeldState | None, verdict: Verdict, at: float) -> HeldState:
    """Return the state after a reading at ``at``; ``held`` is None for the first reading."""
    if held is None or at - held.at > _FORGET_SECONDS:
        return HeldState(verdict, at, at, is_first=True)
    state, before = verdict.state, held.verdict.state
    if state == before:
        return HeldState(verdict, held.since, at, is_first=held.is_first)
    if SEVERITY[state] < SEVERITY[before] or verdict.is_proof:
        return HeldState(verdict, at, at)
    if held.worse_since is not None:
        return HeldState(verdict, held.worse_since, at)
    return HeldState(held.verdict, held.since, at, at, held.is_first)
