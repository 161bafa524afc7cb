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
    from plexd_server.mesh.links import Link, View
    from plexd_server.mesh.live import LiveNode
    from plexd_server.mesh.moment import Moment
    from plexd_server.mesh.node import NodeRow
    from plexd_server.mesh.status import Presence

_DISK_PERCENT: Final = 90.0
_DISK_FULL_PERCENT: Final = 97.0
_CLOCK_SECONDS: Final = 5.0
_LOSS_SECONDS: Final = 86_400.0
_BAD: Final[frozenset[State]] = frozenset({"never", "one-way", "down"})
_MANY: Final = 3
_LOSSY_PERCENT: Final = 20.0
_AT_ONCE: Final = 200
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


def node_alerts(node: LiveNode, seen: Presence, moment: Moment) -> Iterator[Alert]:
    """Return what is wrong with the node itself, of which ``seen`` is the presence."""
    row = node.row
    if seen.status == "silent":
        yield _node_alert(row, "silent", "bad", _silence(seen))
    yield from _clock(row)
    yield from _disk(row)
    if node.losses or node.machines:
        yield from _ledger(node, moment.wall)


def _silence(seen: Presence) -> str:
    quiet, reading = seen.quiet_seconds or 0.0, seen.reading_seconds or 0.0
    if quiet > seen.silent_after:
        return f"no report for {seconds(quiet)}"
    return f"its newest reading is {seconds(reading)} old"


def link_alerts(links: Iterable[Link], silent: frozenset[str]) -> Iterator[Alert]:
    """Return what is wrong between nodes that are not silent."""
    return (alert for alert in finding_alerts(links, silent) if alert is not None)


def finding_alerts(links: Iterable[Link], silent: frozenset[str]) -> Iterator[Alert | None]:
    """Yield the alerts as `link_alerts` does, and None after every step of a few milliseconds."""
    bad: dict[str, Link] = {}
    theirs: dict[str, dict[str, Link]] = {}
    for number, link in enumerate(links):
        if is_bad(link) and silent.isdisjoint((link.a, link.b)):
            bad[link.id] = link
            for end in (link.a, link.b):
                theirs.setdefault(end, {})[link.id] = link
        if number % _AT_ONCE == 0:
            yield None
    yield from _folded(bad, theirs)
    yield from map(_one, bad.values())


def _folded(bad: dict[str, Link], theirs: dict[str, dict[str, Link]]) -> Iterator[Alert | None]:
    """Yield an alert for each node with many bad links, which are taken out of ``bad``.

    None is yielded after every step.
    """
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
        for number, link in enumerate(explained):
            del bad[link.id], theirs[link.a][link.id], theirs[link.b][link.id]
            if number % _AT_ONCE == 0:
                yield None


def is_bad(link: Link) -> bool:
    """Return whether an alert may be about the link."""
    return link.state in _BAD or _is_lossy(link.a_to_b) or _is_lossy(link.b_to_a)


def _is_lossy(view: View | None) -> bool:
    if view is None or view.loss_percent is None or view.loss_percent < _LOSSY_PERCENT:
        return False
    return view.state != "unknown"


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


def _clock(row: NodeRow) -> Iterator[Alert]:
    offset = row.offset
    if abs(offset) >= _CLOCK_SECONDS:
        side = "ahead" if offset > 0 else "behind"
        yield _node_alert(row, "clock", "warn", f"its clock is {seconds(abs(offset))} {side}")


def _disk(row: NodeRow) -> Iterator[Alert]:
    stats = row.system
    if stats is None or not stats.disk_total_bytes:
        return
    used = 100 * stats.disk_used_bytes / stats.disk_total_bytes
    if used >= _DISK_PERCENT:
        left = size(max(0, stats.disk_total_bytes - stats.disk_used_bytes))
        severity: Literal["bad", "warn"] = "bad" if used >= _DISK_FULL_PERCENT else "warn"
        yield _node_alert(row, "disk", severity, f"disk {percent(used)} full, {left} left")


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
        yield _node_alert(node.row, "ledger", "warn", f"{what} lost within 24 h: {why}")
    if node.machines:
        where = " and ".join(sorted(set(node.machines)))
        text = f"{len(node.machines)} machines report as this node, from {where}"
        yield _node_alert(node.row, "ledger", "bad", f"{text}: was it copied?")


def _node_alert(
    row: NodeRow,
    kind: Literal["silent", "disk", "clock", "ledger"],
    severity: Literal["bad", "warn"],
    text: str,
) -> Alert:
    return Alert(kind=kind, severity=severity, node_ids=(row.node_id,), text=text)
