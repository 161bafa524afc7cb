"""How a view's state follows its readings without flapping.

A better state counts at once: an answer is an answer. A worse one needs two readings in a row, or
one that is proof: a single lost ping is no outage. The state then counts from the first of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from plexd_server.mesh.classify import SEVERITY

if TYPE_CHECKING:
    from plexd_server.mesh.classify import State, Verdict

__all__ = ["HeldState", "advance"]

# After so long without a reading the state before says nothing about the next one.
_FORGET_SECONDS = 600.0


class HeldState(Struct, frozen=True, gc=False):
    """A state, its reason, since when it holds and when it was last confirmed, in epoch seconds.

    It may hold for longer when it ``is_first``, before which there was no reading.
    ``worse_since`` is the moment of a reading that spoke for a worse state and waits for a second.
    """

    state: State
    reason: str
    since: float
    at: float
    worse_since: float | None = None
    is_first: bool = False


def advance(before: HeldState | None, verdict: Verdict, at: float) -> HeldState:
    """The standing after a reading taken ``at``; ``before`` is None for the first one."""
    if before is None or at - before.at > _FORGET_SECONDS:
        return HeldState(verdict.state, verdict.reason, at, at, is_first=True)
    if verdict.state == before.state:
        return HeldState(verdict.state, verdict.reason, before.since, at, is_first=before.is_first)
    if SEVERITY[verdict.state] < SEVERITY[before.state] or verdict.is_proof:
        return HeldState(verdict.state, verdict.reason, at, at)
    if before.worse_since is not None:
        return HeldState(verdict.state, verdict.reason, before.worse_since, at)
    return HeldState(before.state, before.reason, before.since, at, at, before.is_first)
