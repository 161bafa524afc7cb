"""The two views of one tunnel, joined: A's of B and B's of A. Pure.

Together they show what neither end sees alone: that one end hears the other and is not heard, or
that one loses more than the other.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from plexd_server.mesh.classify import REJECT_SECONDS, SEVERITY, State
from plexd_server.mesh.wording import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Of twenty pings each, read up to a minute apart: four of them may be lost in between.
_ASYMMETRY_PERCENT: Final = 25.0
_BETWEEN: Final = "~"  # in no node's id


class View(Struct, frozen=True, gc=False, kw_only=True):
    """What ``node_id`` reads of ``peer_id``; what is not known is null.

    ``handshake_age_seconds`` is the age of the handshake at ``measured_at``. Rates are means since
    the reading before.
    """

    node_id: str
    peer_id: str
    state: State
    reason: str
    since: datetime
    measured_at: datetime
    rtt_nano: int | None = None
    loss_percent: float | None = None
    handshake_age_seconds: float | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    rx_bytes_per_second: float | None = None
    tx_bytes_per_second: float | None = None


class Link(Struct, frozen=True, gc=False, kw_only=True):
    """The tunnel between ``a`` and ``b``, ids in order; its ``id`` is the same from both ends.

    ``state`` is the worse of the two views' states, and ``reason`` says which view has it.
    ``loss_asymmetry`` is b's loss minus a's, in percentage points. ``silence`` says which end is
    not heard, and is empty if there is none.
    """

    id: str
    a: str
    b: str
    state: State
    reason: str
    a_to_b: View | None = None
    b_to_a: View | None = None
    loss_asymmetry: float | None = None
    silence: str = ""


_NONE: Final[Mapping[str, Link]] = MappingProxyType({})


def link_id(one: str, other: str) -> str:
    """Return the id of the link between two nodes, given in any order."""
    return _BETWEEN.join(sorted((one, other)))


def join(views: Iterable[View], known: Mapping[str, Link] = _NONE) -> Iterator[Link]:
    """Return one link for each pair that has a view, ordered by its ends.

    A link of ``known``, by id, is used again if its views are the same objects.
    """
    pairs: dict[tuple[str, str], list[View | None]] = {}
    for view in views:
        ends, side = _ends(view)
        pairs.setdefault(ends, [None, None])[side] = view
    for (a, b), (a_to_b, b_to_a) in sorted(pairs.items(), key=itemgetter(0)):
        link = known.get(f"{a}{_BETWEEN}{b}")
        if link is None or link.a_to_b is not a_to_b or link.b_to_a is not b_to_a:
            link = _link(a, b, a_to_b, b_to_a)
        yield link


def _ends(view: View) -> tuple[tuple[str, str], int]:
    if view.node_id <= view.peer_id:
        return (view.node_id, view.peer_id), 0
    return (view.peer_id, view.node_id), 1


def _link(a: str, b: str, a_to_b: View | None, b_to_a: View | None) -> Link:
    views = [view for view in (a_to_b, b_to_a) if view is not None]
    worst = max(views, key=lambda view: SEVERITY[view.state])
    asymmetry = _asymmetry(a_to_b, b_to_a)
    silence = _silence(a_to_b, b_to_a)
    return Link(
        id=link_id(a, b),
        a=a,
        b=b,
        state=worst.state,
        reason=_reason(worst, silence, asymmetry),
        a_to_b=a_to_b,
        b_to_a=b_to_a,
        loss_asymmetry=asymmetry,
        silence=silence,
    )


def _reason(worst: View, silence: str, asymmetry: float | None) -> str:
    if silence:
        return silence
    reason = f"{worst.node_id} about {worst.peer_id}: {worst.reason}"
    if asymmetry is not None and abs(asymmetry) >= _ASYMMETRY_PERCENT:
        return f"{reason}; the two ends' loss differs by {number(abs(asymmetry))} points"
    return reason


def _asymmetry(a_to_b: View | None, b_to_a: View | None) -> float | None:
    """Return b's loss minus a's, or None unless both ends have a recent one."""
    if a_to_b is None or b_to_a is None or "unknown" in {a_to_b.state, b_to_a.state}:
        return None
    if a_to_b.loss_percent is None or b_to_a.loss_percent is None:
        return None
    return b_to_a.loss_percent - a_to_b.loss_percent


def _silence(a_to_b: View | None, b_to_a: View | None) -> str:
    """Return which end is heard and does not hear; it takes a recent view of both."""
    if a_to_b is None or b_to_a is None or "unknown" in {a_to_b.state, b_to_a.state}:
        return ""
    for heard, deaf in ((a_to_b, b_to_a), (b_to_a, a_to_b)):
        if _is_deaf(deaf) and not _is_deaf(heard) and heard.rx_bytes_per_second:
            who, whom = heard.node_id, deaf.node_id
            return f"{who} hears {whom}, but {whom} does not hear {who}"
    return ""


def _is_deaf(view: View) -> bool:
    """Return whether the node sends and nothing comes in."""
    if view.state not in {"one-way", "down"} or view.rx_bytes_per_second is None:
        return False
    age = view.handshake_age_seconds
    sends = bool(view.tx_bytes_per_second) or (age is not None and age > REJECT_SECONDS)
    return sends and view.rx_bytes_per_second == 0
