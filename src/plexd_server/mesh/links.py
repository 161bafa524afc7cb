"""The two views of one tunnel, joined: A's of B and B's of A. Pure.

Together they show what neither end sees alone: that one end hears the other and is not heard, or
that one loses more than the other.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from heapq import merge
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from msgspec import Struct

from plexd_server.mesh.classify import REJECT_SECONDS, SEVERITY, State
from plexd_server.mesh.wording import number

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

# Of twenty pings each, read up to a minute apart: four of them may be lost in between.
_ASYMMETRY_PERCENT: Final = 25.0
_BETWEEN: Final = "~"  # in no node's id
_AT_ONCE: Final = 200

T = TypeVar("T")
_Ends: TypeAlias = tuple[str, str]


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

    ``state`` is the worse of the two views' states, and ``reason`` says which view has it. If one
    end hears nothing, the other is asked: if that receives nothing either, the link is down, and if
    it has not reported since, the link is stale until it does.
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


class _Pair(Struct, gc=False):
    """The views of two ends of each other."""

    a_to_b: View | None = None
    b_to_a: View | None = None


_Pairs: TypeAlias = dict[_Ends, _Pair]
_NONE: Final[Mapping[str, Link]] = MappingProxyType({})


def link_id(one: str, other: str) -> str:
    """Return the id of the link between two nodes, given in any order."""
    return _BETWEEN.join(sorted((one, other)))


def join(views: Iterable[View], known: Mapping[str, Link] = _NONE) -> Iterator[Link]:
    """Return one link for each pair that has a view, ordered by its ends.

    A link of ``known``, by id, is used again if its views are the same objects.
    """
    return (link for link in joining([views], known) if link is not None)


def joining(
    views: Iterable[Iterable[View]], known: Mapping[str, Link] = _NONE
) -> Iterator[Link | None]:
    """Yield the links as `join` does, and None after every step of a few milliseconds."""
    pairs = yield from _paired(views)
    ordered: list[list[_Ends]] = []
    for some in _steps(pairs):
        ordered.append(sorted(some))
        yield None
    for some in _steps(merge(*ordered)):
        for ends in some:
            # Taken out, or all pairs would be given back in one step.
            pair, link = pairs.pop(ends), known.get(_BETWEEN.join(ends))
            if link is None or link.a_to_b is not pair.a_to_b or link.b_to_a is not pair.b_to_a:
                link = _link(*ends, pair.a_to_b, pair.b_to_a)
            yield link
        yield None


def _paired(views: Iterable[Iterable[View]]) -> Generator[None, None, _Pairs]:
    pairs: _Pairs = {}
    for some in _steps(chain.from_iterable(views)):
        for view in some:
            _add(pairs, view)
        yield None
    return pairs


def _add(pairs: _Pairs, view: View) -> None:
    is_a = view.node_id <= view.peer_id
    ends = (view.node_id, view.peer_id) if is_a else (view.peer_id, view.node_id)
    pair = pairs.get(ends)
    if pair is None:
        pair = pairs[ends] = _Pair()
    if is_a:
        pair.a_to_b = view
    else:
        pair.b_to_a = view


def _steps(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield the items, so many at once."""
    iterator = iter(items)
    while some := list(islice(iterator, _AT_ONCE)):
        yield some


def _link(a: str, b: str, a_to_b: View | None, b_to_a: View | None) -> Link:
    views = [view for view in (a_to_b, b_to_a) if view is not None]
    asymmetry = _asymmetry(a_to_b, b_to_a)
    state, reason, silence = _judged(views, asymmetry)
    return Link(
        id=link_id(a, b),
        a=a,
        b=b,
        state=state,
        reason=reason,
        a_to_b=a_to_b,
        b_to_a=b_to_a,
        loss_asymmetry=asymmetry,
        silence=silence,
    )


def _judged(views: list[View], asymmetry: float | None) -> tuple[State, str, str]:
    """Return the state, its reason, and which end is not heard; both ends are asked."""
    worst = max(views, key=lambda view: SEVERITY[view.state])
    if len(views) == 2 and "unknown" not in {view.state for view in views}:
        for deaf, other in (views, views[::-1]):
            if _is_deaf(deaf):
                return _asked(deaf, other, worst)
    return worst.state, _reason(worst, asymmetry), ""


def _asked(deaf: View, other: View, worst: View) -> tuple[State, str, str]:
    """Return what follows when one end hears nothing and the other end is asked."""
    who, whom = other.node_id, deaf.node_id
    if other.rx_bytes_per_second == 0:
        return "down", f"neither end receives anything; {whom} about {who}: {deaf.reason}", ""
    if other.rx_bytes_per_second is None:
        return worst.state, _reason(worst, None), ""
    if other.measured_at >= deaf.since:
        silence = f"{who} hears {whom}, but {whom} does not hear {who}"
        return worst.state, silence, silence
    if deaf.state == "down":
        return worst.state, _reason(worst, None), ""
    return "stale", f"{_reason(worst, None)}; {who} has reported nothing newer yet", ""


def _reason(worst: View, asymmetry: float | None) -> str:
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


def _is_deaf(view: View) -> bool:
    """Return whether the node sends and nothing comes in."""
    if view.state not in {"one-way", "down"} or view.rx_bytes_per_second is None:
        return False
    age = view.handshake_age_seconds
    sends = bool(view.tx_bytes_per_second) or (age is not None and age > REJECT_SECONDS)
    return sends and view.rx_bytes_per_second == 0
