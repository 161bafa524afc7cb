"""What of a node's batches came, by their names: the high-water marks, as pure values.

A node sends its batches in order, so one mark per (node, epoch) tells for ever what came: all up
to point ``upto`` of batch ``seq``. What lies at or below it is a duplicate. That holds for a
lower number that never came, too: nobody sends one later, and so no window of time is needed.

What was refused here never moves the mark, for a refusal can be a mistake: the same batch, or
the rest of it, is still taken. It is kept beside the mark (``refused_seq``, ``refused_upto``),
so that a refusal is counted once however often it is repeated, and explains what is missing.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from plexd_server.store.port import Loss, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.api import BatchName, MetricPoint
    from plexd_server.store.port import Report

__all__ = ["MOST", "Mark", "Step", "advance", "refused_openly"]

MOST: Final = 2**63 - 1  # what a column holds


class Mark(Struct, frozen=True, kw_only=True):
    """What is known of one epoch of a node; the fields are the columns of a receipt.

    Attributes:
        node_id: whose batches they are.
        epoch: of which spool; empty for what came without a name.
        ordinal: the receipts of the whole store are numbered 1, 2, 3 …; 0 before the first.
        seq: the highest batch of which points are stored.
        upto: how many of its points, from its beginning, are settled.
        of: how many it holds.
        refused_seq: the highest batch of which points were refused.
        refused_upto: how many of its points, from its beginning, are settled by that.
        refused_batches: batches refused whole since ``seq``, without ``refused_seq``.
        credit: points refused here of which the node has not told yet.
        told: points lost on the node, as told with ``seq``.
        newest: the newest stamp among the points of ``seq``.
        complete_until: ``newest`` of the last batch that came to its end.
        received_at: when the last receipt was written.
        received: points stored.
        duplicates: reports without effect.
        evicted: points lost on the node, but for those refused here.
        rejected: points refused here.
        gap_batches: batches that never came without a word.
    """

    node_id: str
    epoch: str
    ordinal: int = 0
    seq: int = 0
    upto: int = 0
    of: int = 0
    refused_seq: int = 0
    refused_upto: int = 0
    refused_batches: int = 0
    credit: int = 0
    told: int = 0
    newest: datetime | None = None
    complete_until: datetime | None = None
    received_at: datetime | None = None
    received: int = 0
    duplicates: int = 0
    evicted: int = 0
    rejected: int = 0
    gap_batches: int = 0


class Step(NamedTuple):
    """What a report does: the mark after it, and the points and losses it adds."""

    mark: Mark
    receipt: Receipt
    points: Sequence[MetricPoint] = ()
    losses: Sequence[Loss] = ()
    is_to_keep: bool = True


def advance(mark: Mark, report: Report) -> Step:
    """What ``report`` does to the epoch it belongs to."""
    name = report.name
    if name is None:
        return _unnamed(mark, report)
    if report.rejected:
        return _refuse(mark, report, name)
    if not report.points:
        return Step(mark, Receipt(0), is_to_keep=False)
    if (name.seq, name.offset + len(report.points)) <= (mark.seq, mark.upto):
        return _again(mark, Receipt(len(report.points), duplicate=True))
    return _accept(mark, report, name)


def refused_openly(mark: Mark) -> int:
    """Points refused since ``seq`` that ``rejected`` does not count yet.

    How many they are is certain only when the next batch comes: of a body that cannot be read
    the number is a guess, and the rest of the batch may still be taken.
    """
    if mark.refused_seq > mark.seq:
        return mark.refused_upto + mark.of - mark.upto
    if mark.refused_seq == mark.seq:
        return max(0, mark.refused_upto - mark.upto)
    return 0


def _unnamed(mark: Mark, report: Report) -> Step:
    points = report.points
    after = replace(mark, received=mark.received + len(points), received_at=report.received_at)
    return Step(after, Receipt(len(points)), points, is_to_keep=bool(points))


def _again(mark: Mark, receipt: Receipt) -> Step:
    return Step(_plus(mark, duplicates=1), receipt, is_to_keep=False)


def _refuse(mark: Mark, report: Report, name: BatchName) -> Step:
    upto = min(name.offset + report.rejected, name.of)
    known = max((mark.seq, mark.upto), (mark.refused_seq, mark.refused_upto))
    if (name.seq, upto) <= known:
        return Step(mark, Receipt(0, duplicate=True), is_to_keep=False)
    losses: list[Loss] = []
    after = replace(mark, refused_seq=name.seq, refused_upto=upto, received_at=report.received_at)
    if mark.seq < mark.refused_seq < name.seq:
        points = mark.refused_upto
        after = _plus(after, rejected=points, credit=points, refused_batches=1)
        losses.append(_loss("rejected", mark, report, report.received_at, points, 1))
    return Step(after, Receipt(0), losses=losses)


class _Missing(NamedTuple):
    """What does not lie between the mark and a piece beyond it, though it should.

    A node skips nothing within a batch but what was refused here: ``before`` points of earlier
    batches (``whole`` of which was refused in one piece), of which it tells with this one, and
    ``here`` in this batch, of which it tells with the next. ``batches`` others are not explained.
    """

    before: int = 0
    whole: int = 0
    here: int = 0
    batches: int = 0

    @property
    def refused(self) -> int:
        return self.before + self.here


def _missing(mark: Mark, name: BatchName) -> _Missing:
    if name.seq == mark.seq:
        return _Missing(here=max(0, name.offset - mark.upto))
    whole = int(mark.seq < mark.refused_seq < name.seq)
    return _Missing(
        before=mark.of - mark.upto + whole * mark.refused_upto,
        whole=whole,
        here=name.offset,
        batches=name.seq - mark.seq - 1 - whole - mark.refused_batches,
    )


def _accept(mark: Mark, report: Report, name: BatchName) -> Step:
    goes_on = name.seq == mark.seq
    points = report.points[max(0, mark.upto - name.offset) if goes_on else 0 :]
    missing = _missing(mark, name)
    # A piece that is sent again in another cut tells again what its batch told before.
    told = max(0, report.dropped - (mark.told if goes_on else 0))
    refused = mark.credit + missing.before
    after = _plus(
        _moved(mark, report, name, points),
        received=len(points),
        rejected=missing.refused,
        evicted=(evicted := max(0, told - refused)),
        gap_batches=0 if evicted else missing.batches,
    )
    after = replace(after, credit=max(0, refused - told) + missing.here)
    return Step(
        after,
        Receipt(len(report.points)),
        points,
        list(_losses(mark, report, points, missing, evicted)),
    )


def _moved(mark: Mark, report: Report, name: BatchName, points: Sequence[MetricPoint]) -> Mark:
    """The mark after ``points``, which end the report."""
    newest, told, refused_batches = _newest(points), report.dropped, 0
    if name.seq == mark.seq:
        newest = max(newest, mark.newest or newest)
        told = max(told, mark.told)
        refused_batches = mark.refused_batches
    upto = name.offset + len(report.points)
    return replace(
        mark,
        seq=name.seq,
        upto=upto,
        of=max(name.of, upto),
        refused_batches=refused_batches,
        told=told,
        newest=newest,
        complete_until=newest if upto >= name.of else mark.complete_until,
        received_at=report.received_at,
    )


def _losses(
    mark: Mark,
    report: Report,
    points: Sequence[MetricPoint],
    missing: _Missing,
    evicted: int,
) -> Iterator[Loss]:
    """What is missing ahead of ``points``, and why."""
    if not (missing.refused or evicted or missing.batches):
        return
    until = min(point.timestamp for point in points)
    if missing.refused:
        yield _loss("rejected", mark, report, until, missing.refused, missing.whole)
    if evicted or missing.batches:
        reason = "evicted" if evicted else "gap"
        yield _loss(reason, mark, report, until, evicted, missing.batches)


def _newest(points: Sequence[MetricPoint]) -> datetime:
    return max(point.timestamp for point in points)


def _plus(mark: Mark, **more: int) -> Mark:
    """With these counts added; they stop at what a column holds."""
    return replace(
        mark, **{name: min(MOST, getattr(mark, name) + count) for name, count in more.items()}
    )


def _loss(
    reason: str, mark: Mark, report: Report, until: datetime, points: int, batches: int
) -> Loss:
    return Loss(
        reason=reason,
        since=mark.newest,
        until=until,
        noticed_at=report.received_at,
        points=points,
        batches=batches,
    )
