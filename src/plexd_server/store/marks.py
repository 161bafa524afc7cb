"""Which of a node's points came, by their names: the high-water marks, as pure values.

A point is named by an epoch and a place in it, and points are sent in the order of their places. So
one mark for each (node, epoch) is enough for ever: everything up to place ``upto`` came, or is
counted as lost. `advance` is the only function that moves a mark. ``docs/spec/delivery.md`` has the
rules.

The marks of a node form a tree: each epoch names its predecessor. An *open* mark is one after
which more may come: the last of its branch. A node that was copied has two open ones, and what the
server says of the node holds for both.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from plexd.api import BatchName, MetricPoint, Predecessor, Receipt, is_continuation
from plexd_server.store.port import Branch, Ledger, Loss, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LOSSES_IN_LEDGER: Final = 100
MARKS_OF_NODE: Final = 4096
# The epoch of the mark that holds the counts of marks that are not kept any more.
FOLDED: Final = "*"
_BRANCHES_IN_LEDGER: Final = 20
# No spool keeps a point for longer, so nothing more comes of an epoch that was silent for so long.
_LONGEST_SILENCE: Final = timedelta(days=90)
_RETURNS_OF_TWO: Final = 2
_LARGEST: Final = 2**63 - 1  # what a column holds
_COUNTS: Final = (
    *("received", "duplicates", "evicted", "rejected", "gap", "ahead", "unknown_keys"),
)


class Mark(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What is known of one epoch of a node. The fields are the columns of the table ``receipts``.

    In the journal's records it is an array of the fields in this order; a new one goes last.

    Attributes:
        node_id: the node that sent the points.
        epoch: the epoch of their names; empty for reports without a name.
        ordinal: the marks of the whole store are numbered 1, 2, 3 … when stored; 0 before that.
        upto: the highest place that came.
        seen: the highest place of which the time stamp is known: ``upto``, but for batches that
            were rejected whole.
        last: the time stamp of the point at ``seen``.
        newest: the newest time stamp that came, of rejected points too.
        newest_stored: the newest time stamp of the stored points.
        settled: places up to this one that did not come are counted as lost by a successor.
        floor: points measured by then are rejected.
        predecessor: the epoch that its first batch named.
        began: the node's turn with which it began; 0 if it was only named by a successor.
        turn: the node's turn with which it moved last; a node's reports that have an effect are its
            turns 1, 2, 3 …
        is_root: whether it began with a loss of which nobody knows the beginning.
        returns: how often it moved after another epoch of the node had.
        told: the points that the node reported as dropped.
        missing: the points that are missing by their names.
        whole: points of batches that were rejected whole.
        complete_until: the time stamp of the last stored point of the branch.
        received_at: when the last report that is part of the mark arrived.
        address: where it came from.
        received: points stored.
        duplicates: reports without effect.
        evicted: points lost on the node, by its own account.
        rejected: points rejected, with those of ``whole``.
        gap: points that never came and that the node did not report as dropped.
        ahead: points rejected because their time stamps were ahead of the clock.
        unknown_keys: keys that were skipped in its reports.
    """

    node_id: str
    epoch: str
    ordinal: int = 0
    upto: int = 0
    seen: int = 0
    last: datetime | None = None
    newest: datetime | None = None
    newest_stored: datetime | None = None
    settled: int = 0
    floor: datetime | None = None
    predecessor: str = ""
    began: int = 0
    turn: int = 0
    is_root: bool = False
    returns: int = 0
    told: int = 0
    missing: int = 0
    whole: int = 0
    complete_until: datetime | None = None
    received_at: datetime | None = None
    address: str = ""
    received: int = 0
    duplicates: int = 0
    evicted: int = 0
    rejected: int = 0
    gap: int = 0
    ahead: int = 0
    unknown_keys: int = 0


class Others(NamedTuple):
    """What a step needs to know of the node's other marks.

    Attributes:
        turn: the node's last turn; 0 if it has no mark.
        epoch: the epoch that moved with it.
        floor: up to when marks of the node are not kept any more.
        predecessor: the mark of the epoch that the report comes after, if there is one. It is
            looked at with the first batch of an epoch only.
    """

    turn: int = 0
    epoch: str = ""
    floor: datetime | None = None
    predecessor: Mark | None = None


class Step(NamedTuple):
    """What a report does: the marks after it, and the points and losses it adds.

    ``predecessor`` is the predecessor's mark if it changes. ``must_store`` is false if the report
    changes nothing but the count of duplicates. ``is_notable``: whether the ledger says something
    new beside what was received.
    """

    mark: Mark
    receipt: Receipt
    points: Sequence[MetricPoint] = ()
    losses: Sequence[Loss] = ()
    predecessor: Mark | None = None
    must_store: bool = True
    is_notable: bool = False


def advance(mark: Mark, report: Report, others: Others = Others()) -> Step:  # noqa: B008 -- a value
    """Return what ``report`` does to the epoch it belongs to."""
    name = report.name
    if name is None:
        return _unnamed(mark, report)
    if not (report.points or report.is_rejected):
        return Step(mark, Receipt(0), must_store=False)
    if _is_clash(mark, report, name):
        receipt = Receipt(0, clash=True, upto=mark.upto, newest=mark.newest)
        return Step(mark, receipt, must_store=False)
    if name.last <= mark.upto:
        receipt = _receipt(report, [], is_duplicate=True)
        return Step(_plus(mark, duplicates=1), receipt, must_store=False)
    return _move(mark, report, name, others)


def make_ledger(marks: Iterable[Mark], losses: Sequence[Loss]) -> Ledger:
    """Return the sum of all marks of a node."""
    known = list(marks)
    named = [mark for mark in known if mark.epoch]
    branches = open_marks(named)
    ends = [mark.complete_until for mark in branches]
    return Ledger(
        complete_until=None if None in ends else min(filter(None, ends), default=None),
        received=sum(mark.received for mark in named),
        duplicates=sum(mark.duplicates for mark in named),
        evicted=sum(mark.evicted for mark in named),
        rejected=sum(mark.rejected for mark in named),
        gap=sum(mark.gap for mark in named),
        ahead=sum(mark.ahead for mark in known),
        losses=tuple(losses[-LOSSES_IN_LEDGER:]),
        branches=tuple(_branch(mark) for mark in branches[-_BRANCHES_IN_LEDGER:]),
        machines=tuple(mark.address for mark in machines(branches)),
        unknown_keys=sum(mark.unknown_keys for mark in known),
    )


def open_marks(marks: Sequence[Mark]) -> list[Mark]:
    """Return the last mark of each branch, in order of their latest turns.

    A mark is not the last of its branch if a successor began after its latest turn. It is not open
    either if the spool began anew since then, as the loss noted with that has no beginning.
    """
    known = [mark for mark in marks if mark.began]
    followed: dict[str, int] = {}
    for mark in known:
        followed[mark.predecessor] = max(followed.get(mark.predecessor, 0), mark.began)
    anew = max((mark.began for mark in known if mark.is_root), default=0)
    now = max((mark.received_at for mark in known if mark.received_at), default=None)
    found = [m for m in known if m.turn >= max(anew, followed.get(m.epoch, 0))]
    recent = [m for m in found if not (now and m.received_at and _is_over(m.received_at, now))]
    return sorted(recent, key=lambda mark: mark.turn)


def machines(branches: Sequence[Mark]) -> list[Mark]:
    """Return the open marks of two or more machines under one identity; none if it is one machine.

    Two epochs each moved again twice after the other had. One machine sends its epochs one after
    the other, and returns to an earlier one at most once, after a fault of its disk.
    """
    found = [mark for mark in branches if mark.returns >= _RETURNS_OF_TWO]
    return found if len(found) > 1 else []


def fold(folded: Mark, mark: Mark) -> Mark:
    """Return ``folded`` with the counts of a mark that is not kept any more.

    Its ``floor`` is up to when points may be stored of which there is no mark.
    """
    stamps = filter(None, (folded.floor, mark.newest_stored))
    counts = {name: getattr(mark, name) for name in _COUNTS}
    return _plus(replace(folded, floor=max(stamps, default=None)), **counts)


def _is_over(received_at: datetime, now: datetime) -> bool:
    return now - received_at > _LONGEST_SILENCE


def _branch(mark: Mark) -> Branch:
    return Branch(
        epoch=mark.epoch,
        complete_until=mark.complete_until,
        received_at=mark.received_at,
        address=mark.address,
    )


def _unnamed(mark: Mark, report: Report) -> Step:
    stored = [point for i, point in enumerate(report.points) if i not in set(report.ahead)]
    after = replace(mark, received_at=report.received_at, address=report.address)
    after = _plus(
        after,
        received=len(stored),
        ahead=len(report.ahead),
        unknown_keys=report.unknown_keys,
    )
    losses = list(_rejections(mark, report, ahead=len(report.ahead)))
    return Step(
        after,
        _receipt(report, []),
        stored,
        losses,
        must_store=bool(report.points),
        is_notable=bool(losses),
    )


def _is_clash(mark: Mark, report: Report, name: BatchName) -> bool:
    """Return whether the places up to the mark are those of other points than came before.

    Of a batch that was rejected whole nothing is known, so its points are not compared.
    """
    known = mark.seen - name.first + 1
    if known <= 0 or mark.newest is None or not report.points:
        return False
    stamps = [point.timestamp for point in report.points[:known]]
    return max(stamps) > mark.newest or (len(stamps) == known and stamps[-1] != mark.last)


class _Beginning(NamedTuple):
    """What is missing before a report, and what is to be said of it.

    Attributes:
        mark: the mark, begun.
        missing: points between the mark, or the predecessor, and the report.
        since: the stamp of the last point before them; None if it is not known.
        detail: why the beginning of the loss is not known; empty if it is.
        put_back: how far the predecessor's mark is beyond the place where the node left it.
        predecessor: its mark, if it changes.
        evicted: lost points of the predecessor that the node reported, and that were not counted.
        gap: the other lost points of the predecessor that were not counted.
    """

    mark: Mark
    missing: int
    since: datetime | None
    detail: str = ""
    put_back: int = 0
    predecessor: Mark | None = None
    evicted: int = 0
    gap: int = 0


def _begin(mark: Mark, report: Report, name: BatchName, others: Others) -> _Beginning:
    if mark.began:
        missing = max(0, name.first - 1 - max(mark.upto, mark.settled))
        return _Beginning(mark, missing, mark.complete_until)
    after = report.after or Predecessor()
    if after.epoch == name.epoch:  # nothing comes after itself
        after = Predecessor(skipped=after.skipped)
    known = others.predecessor if after.epoch else None
    before = known or Mark(node_id=mark.node_id, epoch=after.epoch)
    detail = _unknown(after, known, others)
    put_back = max(0, before.upto - after.place) if known else 0
    # Of a mark that went on since then, nobody knows when the point at that place was measured.
    since = None if put_back else before.complete_until
    begun = replace(
        mark,
        began=others.turn + 1,
        predecessor=after.epoch,
        floor=others.floor,
        is_root=bool(detail),
        complete_until=since,
    )
    missing = _missing_before(mark, name, after)
    if not after.epoch:
        return _Beginning(begun, missing, None, detail)
    left = _plus(before, missing=_lacking(before, after, others))
    evicted, gap = _newly_lost(left)
    left = replace(left, settled=max(before.settled, after.place))
    return _Beginning(
        begun,
        missing,
        since,
        detail,
        put_back,
        _plus(left, evicted=evicted, gap=gap),
        evicted,
        gap,
    )


def _unknown(after: Predecessor, known: Mark | None, others: Others) -> str:
    if after.epoch:
        return "" if known else "predecessor unknown"
    return "spool begun anew" if others.turn else ""


def _missing_before(mark: Mark, name: BatchName, after: Predecessor) -> int:
    """Return how many points are missing between the predecessor and the epoch's first batch."""
    if is_continuation(name.epoch, after.epoch):
        # Its places go on where the predecessor's end, and what was skipped is among them.
        return max(after.skipped, name.first - 1 - max(after.place, mark.settled))
    return after.skipped + max(0, name.first - 1 - mark.settled)


def _lacking(before: Mark, after: Predecessor, others: Others) -> int:
    """Return how many of the predecessor's places did not come, and no successor has counted."""
    if not before.began and others.floor is not None:
        return 0  # its mark may be one that is not kept any more
    return max(0, after.place - max(before.upto, before.settled))


class _New(NamedTuple):
    """The points of a report beyond the mark."""

    stamps: Sequence[datetime]
    stored: Sequence[MetricPoint]
    old: Sequence[MetricPoint]
    ahead: int
    whole: int


def _sort_out(mark: Mark, report: Report, name: BatchName) -> _New:
    known = max(0, mark.upto - name.first + 1)
    if report.is_rejected:
        return _New([], [], [], 0, name.points - known)
    new = report.points[known:]
    stamps = [point.timestamp for point in new]
    ahead = {index - known for index in report.ahead if index >= known}
    floor = mark.floor
    if not ahead and (floor is None or min(stamps) > floor):
        return _New(stamps, new, [], 0, 0)
    fit = [point for i, point in enumerate(new) if i not in ahead]
    old = [point for point in fit if floor is not None and point.timestamp <= floor]
    stored = [point for point in fit if floor is None or point.timestamp > floor]
    return _New(stamps, stored, old, len(ahead), 0)


def _move(mark: Mark, report: Report, name: BatchName, others: Others) -> Step:
    beginning = _begin(mark, report, name, others)
    new = _sort_out(beginning.mark, report, name)
    after = _moved(beginning, report, name, others, new)
    evicted, gap = _newly_lost(after)
    after = _plus(after, evicted=evicted, gap=gap)
    lost = evicted + beginning.evicted, gap + beginning.gap
    losses = list(_losses(beginning, report, new, *lost))
    return Step(
        after,
        _receipt(report, new.old),
        new.stored,
        losses,
        beginning.predecessor,
        is_notable=bool(losses) or after.returns > mark.returns,
    )


def _moved(
    beginning: _Beginning, report: Report, name: BatchName, others: Others, new: _New
) -> Mark:
    mark = beginning.mark
    stamps = [point.timestamp for point in new.stored]
    is_return = bool(mark.turn) and others.epoch != mark.epoch
    moved = replace(
        mark,
        upto=name.last,
        seen=name.last if new.stamps else mark.seen,
        last=new.stamps[-1] if new.stamps else mark.last,
        newest=_latest(mark.newest, new.stamps),
        newest_stored=_latest(mark.newest_stored, stamps),
        turn=others.turn + 1,
        told=max(mark.told, report.dropped),
        complete_until=stamps[-1] if stamps else mark.complete_until,
        received_at=report.received_at,
        address=report.address,
    )
    return _plus(
        moved,
        returns=int(is_return),
        missing=beginning.missing,
        whole=new.whole,
        received=len(new.stored),
        rejected=new.whole + len(new.old),
        ahead=new.ahead,
        unknown_keys=report.unknown_keys,
    )


def _latest(known: datetime | None, stamps: Sequence[datetime]) -> datetime | None:
    return max((*stamps, known) if known else stamps, default=known)


def _newly_lost(mark: Mark) -> tuple[int, int]:
    """Return how many lost points are not counted yet: those the node reported, and the others.

    What is missing by its name and what the node reports are two witnesses of one loss. The node's
    number includes the points of its batches that were rejected.
    """
    dropped = max(0, mark.told - mark.whole)
    new = max(0, max(mark.missing, dropped) - mark.evicted - mark.gap)
    evicted = min(new, max(0, dropped - mark.evicted))
    return evicted, new - evicted


def _losses(
    beginning: _Beginning, report: Report, new: _New, evicted: int, gap: int
) -> Iterator[Loss]:
    since, detail = beginning.since, beginning.detail
    stamps = [point.timestamp for point in (*new.stored, *new.old)]
    until = min(stamps, default=report.received_at)
    if evicted:
        yield _loss("evicted", report, since, until, evicted)
    if gap or detail:
        yield _loss("gap", report, None if detail else since, until, gap, detail)
    if beginning.put_back:
        yield _loss("put_back", report, since, until, beginning.put_back)
    yield from _rejections(beginning.mark, report, new.whole + len(new.old), new.ahead)


def _rejections(mark: Mark, report: Report, rejected: int = 0, ahead: int = 0) -> Iterator[Loss]:
    """Yield what was rejected. The stamps are not known or not to be believed, but the arrival."""
    for reason, points in (("rejected", rejected), ("ahead", ahead)):
        if points:
            until = report.received_at
            yield _loss(reason, report, mark.complete_until, until, points)


def _loss(
    reason: str,
    report: Report,
    since: datetime | None,
    until: datetime,
    points: int,
    detail: str = "",
) -> Loss:
    return Loss(
        reason=reason,
        since=since,
        until=until,
        noticed_at=report.received_at,
        points=min(points, _LARGEST),
        detail=detail,
    )


def _receipt(report: Report, old: Sequence[MetricPoint], *, is_duplicate: bool = False) -> Receipt:
    rejected = len(report.ahead) + len(old)
    reasons = [*_ahead_reason(report), *_old_reason(old)]
    return Receipt(
        len(report.points) - rejected,
        duplicate=is_duplicate,
        rejected=rejected,
        reason="; ".join(reasons),
    )


def _ahead_reason(report: Report) -> Iterator[str]:
    if report.ahead:
        newest = max(report.points[index].timestamp for index in report.ahead)
        yield (
            f"{_points(len(report.ahead))} more than 24 h ahead of the server's clock: up to "
            f"{newest:%Y-%m-%dT%H:%M:%SZ}, and it is {report.received_at:%Y-%m-%dT%H:%M:%SZ} there"
        )


def _old_reason(old: Sequence[MetricPoint]) -> Iterator[str]:
    if old:
        newest = max(point.timestamp for point in old)
        yield (
            f"{_points(len(old))} of {newest:%Y-%m-%dT%H:%M:%SZ} or before, and the server no "
            "longer knows whether they came"
        )


def _points(count: int) -> str:
    return f"{count:,} point" if count == 1 else f"{count:,} points"


def _plus(mark: Mark, **counts: int) -> Mark:
    """Return the mark with these counts added, each at most what a column holds."""
    return replace(
        mark, **{name: min(_LARGEST, getattr(mark, name) + more) for name, more in counts.items()}
    )
