"""What the operator should look at: few lines, each with its reason, without settings. Pure.

A silent node is one alert, and its links are none. Several bad links of one node are one alert of
that node.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from plexd_server.mesh.wording import percent, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from plexd_server.mesh.classify import State
    from plexd_server.mesh.links import Link
    from plexd_server.mesh.node import LiveNode

_DISK_PERCENT: Final = 90.0
_DISK_FULL_PERCENT: Final = 97.0
_CLOCK_SECONDS: Final = 5.0
_LOSS_SECONDS: Final = 86_400.0
_BAD: Final[frozenset[State]] = frozenset({"never", "one-way", "down"})
_MANY: Final = 3
_LOSSY_PERCENT: Final = 20.0
_WHY: Final = {
    "evicted": "on the node",
    "rejected": "as this server refused them",
    "gap": "as they never came",
    "ahead": "as its clock is ahead",
}


class Alert(Struct, frozen=True, kw_only=True):
    """One thing to look at; ``link_id`` is set where it is one link."""

    kind: Literal["silent", "link", "links", "loss", "disk", "clock", "ledger"]
    severity: Literal["bad", "warn"]
    node_ids: tuple[str, ...]
    text: str
    link_id: str = ""


def node_alerts(node: LiveNode, now: float) -> Iterator[Alert]:
    """Return what is wrong with the node itself."""
    if (silence := silent_for(node, now)) is not None:
        yield _node_alert(node, "silent", "bad", f"no report for {seconds(silence)}")
    yield from _clock(node)
    yield from _disk(node)
    yield from _ledger(node, now)


def silent_for(node: LiveNode, now: float) -> float | None:
    """Return the seconds since the last report of a node that owes one, or None."""
    if node.received_at is None:
        return None
    # While this server was not running, no node could report.
    is_owed = now - max(node.received_at, node.recalled_at) > node.silent_after
    return now - node.received_at if is_owed else None


def link_alerts(links: Iterable[Link], silent: frozenset[str]) -> Iterator[Alert]:
    """Return what is wrong between nodes that are not silent."""
    bad = {link.id: link for link in links if _is_bad(link) and silent.isdisjoint((link.a, link.b))}
    theirs: dict[str, dict[str, Link]] = {}
    for link in bad.values():
        for end in (link.a, link.b):
            theirs.setdefault(end, {})[link.id] = link
    # The node with the most bad links explains them; the others are then counted again.
    heap = [(-len(links), end) for end, links in theirs.items()]
    heapify(heap)
    while heap and -heap[0][0] >= _MANY:
        count, end = heappop(heap)
        if -count != len(theirs[end]):
            heappush(heap, (-len(theirs[end]), end))
            continue
        explained = list(theirs[end].values())
        yield _many(end, explained)
        for link in explained:
            del bad[link.id], theirs[link.a][link.id], theirs[link.b][link.id]
    yield from map(_one, bad.values())


def _is_bad(link: Link) -> bool:
    return link.state in _BAD or _loss(link) >= _LOSSY_PERCENT


def _loss(link: Link) -> float:
    views = (link.a_to_b, link.b_to_a)
    recent = [view for view in views if view is not None and view.state != "unknown"]
    return max((view.loss_percent or 0.0 for view in recent), default=0.0)


def _one(link: Link) -> Alert:
    is_bad = link.state in _BAD
    return Alert(
        kind="link" if is_bad else "loss",
        severity="bad" if link.state in {"one-way", "down"} else "warn",
        node_ids=(link.a, link.b),
        text=f"{link.state}: {link.reason}" if is_bad else f"loses pings: {link.reason}",
        link_id=link.id,
    )


def _many(node_id: str, links: Sequence[Link]) -> Alert:
    states = Counter(link.state if link.state in _BAD else "lossy" for link in links)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return Alert(
        kind="links",
        severity="bad",
        node_ids=(node_id,),
        text=f"{len(links)} links are bad ({counted})",
    )


def _clock(node: LiveNode) -> Iterator[Alert]:
    offset = node.offset
    if abs(offset) >= _CLOCK_SECONDS:
        side = "ahead" if offset > 0 else "behind"
        yield _node_alert(node, "clock", "warn", f"its clock is {seconds(abs(offset))} {side}")


def _disk(node: LiveNode) -> Iterator[Alert]:
    if node.system is None or not node.system[1].disk_total_bytes:
        return
    stats = node.system[1]
    used = 100 * stats.disk_used_bytes / stats.disk_total_bytes
    if used >= _DISK_PERCENT:
        left = size(max(0, stats.disk_total_bytes - stats.disk_used_bytes))
        severity: Literal["bad", "warn"] = "bad" if used >= _DISK_FULL_PERCENT else "warn"
        yield _node_alert(node, "disk", severity, f"disk {percent(used)} full, {left} left")


def _ledger(node: LiveNode, now: float) -> Iterator[Alert]:
    recent = [
        loss
        for loss in node.losses
        if loss.reason in _WHY and now - loss.noticed_at.timestamp() < _LOSS_SECONDS
    ]
    if recent:
        points = sum(loss.points for loss in recent)
        what = f"{points:,} points" if points else "an unknown number of points"
        why = ", ".join(sorted({_WHY[loss.reason] for loss in recent}))
        yield _node_alert(node, "ledger", "warn", f"{what} lost within 24 h: {why}")
    if node.machines:
        where = " and ".join(sorted(set(node.machines)))
        text = f"{len(node.machines)} machines report as this node, from {where}"
        yield _node_alert(node, "ledger", "bad", f"{text}: was it copied?")


def _node_alert(
    node: LiveNode,
    kind: Literal["silent", "disk", "clock", "ledger"],
    severity: Literal["bad", "warn"],
    text: str,
) -> Alert:
    return Alert(kind=kind, severity=severity, node_ids=(node.node_id,), text=text)
