"""Which of a node's batches came, by their names: the high-water marks, as pure values.

A node sends its batches in order, so one mark for each (node, epoch) is enough for ever: everything
up to point ``upto`` of batch ``seq`` came, and what is at or below the mark is a duplicate. A lower
number that never came counts as a duplicate too: no node sends one later, and so no window of time
is needed.

Rejected points never move the mark, because a rejection can be a mistake: the same batch, or the
rest of it, is still accepted. The mark keeps them apart (``refused_seq``, ``refused_upto``), so a
repeated rejection is counted once and explains what is missing.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from plexd_server.store.port import Ledger, Loss, Receipt, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.api import BatchName, MetricPoint

LOSSES_IN_LEDGER: Final = 100
_LARGEST: Final = 2**63 - 1  # what a column holds


class Mark(Struct, frozen=True, kw_only=True):
    """What is known of one epoch of a node.

    The fields are the columns of the table ``receipts`` on disk, so they keep their names:
    ``refused_…`` is about points rejected here, ``told`` about points reported as dropped.

    Attributes:
        node_id: the node that sent the batches.
        epoch: the spool that they come from; empty for reports without a name.
        ordinal: the marks of the whole store are numbered 1, 2, 3 … when stored; 0 before that.
        seq: the highest batch of which points are stored.
        upto: how many of its points, from its beginning, are stored or rejected.
        of: how many it holds.
        refused_seq: the highest batch of which points were rejected.
        refused_upto: where the rejected points end, counted from that batch's beginning.
        refused_batches: batches rejected whole since ``seq``, without ``refused_seq``.
        credit: points rejected here that the node has not reported as dropped yet.
        told: points that the node reported as dropped with ``seq``.
        newest: the newest time stamp among the points of ``seq``.
        complete_until: ``newest`` of the last batch that is complete.
        received_at: when the last report that is part of the mark arrived.
        received: points stored.
        duplicates: reports without effect.
        evicted: points lost on the node, except those rejected here.
        rejected: points rejected here.
        gap_batches: batches that never came, without a report of dropped points.
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
    """What a report does: the mark after it, and the points and losses it adds.

    ``must_store`` is false if the report changes nothing but the count of duplicates.
    """

    mark: Mark
    receipt: Receipt
    points: Sequence[MetricPoint] = ()
    losses: Sequence[Loss] = ()
    must_store: bool = True


def advance(mark: Mark, report: Report) -> Step:
    """Return what ``report`` does to the epoch it belongs to."""
    name = report.name
    if name is None:
        return _unnamed(mark, report)
    if report.rejected:
        return _reject(mark, report, name)
    if not report.points:
        return Step(mark, Receipt(0), must_store=False)
    if (name.seq, name.offset + len(report.points)) <= (mark.seq, mark.upto):
        receipt = Receipt(len(report.points), duplicate=True)
        return Step(_plus(mark, duplicates=1), receipt, must_store=False)
    return _accept(mark, report, name)


def make_ledger(marks: Sequence[Mark], losses: Sequence[Loss]) -> Ledger:
    """Return the sum of a node's epochs; the last of ``marks`` is the epoch the node is in."""
    if not marks:
        return Ledger()
    uncounted = [loss for mark in marks if (loss := _uncounted_loss(mark))]
    return Ledger(
        complete_until=marks[-1].complete_until,
        received=sum(mark.received for mark in marks),
        duplicates=sum(mark.duplicates for mark in marks),
        evicted=sum(mark.evicted for mark in marks),
        rejected=sum(mark.rejected + _uncounted(mark) for mark in marks),
        gap_batches=sum(mark.gap_batches for mark in marks),
        losses=[*losses, *uncounted][-LOSSES_IN_LEDGER:],
    )


def _uncounted(mark: Mark) -> int:
    """Return how many points were rejected since ``seq`` that ``rejected`` does not count yet.

    The number is certain only when the next batch comes: for a body that cannot be read it is a
    guess, and the rest of the batch may still be accepted.
    """
    if mark.refused_seq > mark.seq:
        return mark.refused_upto + mark.of - mark.upto
    if mark.refused_seq == mark.seq:
        return max(0, mark.refused_upto - mark.upto)
    return 0


def _uncounted_loss(mark: Mark) -> Loss | None:
    points = _uncounted(mark)
    if not points or mark.received_at is None:
        return None
    return Loss(
        reason="rejected",
        since=mark.newest,
        until=mark.received_at,
        noticed_at=mark.received_at,
        points=points,
        batches=int(mark.refused_seq > mark.seq),
    )


def _unnamed(mark: Mark, report: Report) -> Step:
    points = report.points
    after = replace(mark, received=mark.received + len(points), received_at=report.received_at)
    return Step(after, Receipt(len(points)), points, must_store=bool(points))


def _reject(mark: Mark, report: Report, name: BatchName) -> Step:
    upto = min(name.offset + report.rejected, name.of)
    known = max((mark.seq, mark.upto), (mark.refused_seq, mark.refused_upto))
    if (name.seq, upto) <= known:
        return Step(mark, Receipt(0, duplicate=True), must_store=False)
    losses: list[Loss] = []
    after = replace(mark, refused_seq=name.seq, refused_upto=upto, received_at=report.received_at)
    if mark.seq < mark.refused_seq < name.seq:
        points = mark.refused_upto
        after = _plus(after, rejected=points, credit=points, refused_batches=1)
        losses.append(_loss("rejected", mark, report, report.received_at, points, 1))
    return Step(after, Receipt(0), losses=losses)


class _Missing(NamedTuple):
    """What is missing between the mark and a piece beyond it.

    A node leaves nothing out of a batch except what was rejected here.

    Attributes:
        before: rejected points of earlier batches; the node reports them with this batch.
        whole: how many of those batches were rejected in one piece.
        here: rejected points of this batch; the node reports them with the next one.
        batches: other batches, which nothing explains.
    """

    before: int = 0
    whole: int = 0
    here: int = 0
    batches: int = 0

    @property
    def rejected(self) -> int:
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
    is_same_batch = name.seq == mark.seq
    points = report.points[max(0, mark.upto - name.offset) if is_same_batch else 0 :]
    missing = _missing(mark, name)
    # A batch that is sent again in other pieces reports its dropped points again.
    dropped = max(0, report.dropped - (mark.told if is_same_batch else 0))
    rejected = mark.credit + missing.before
    evicted = max(0, dropped - rejected)
    after = _plus(
        _moved(mark, report, name, points),
        received=len(points),
        rejected=missing.rejected,
        evicted=evicted,
        gap_batches=0 if evicted else missing.batches,
    )
    after = replace(after, credit=max(0, rejected - dropped) + missing.here)
    losses = list(_losses(mark, report, points, missing, evicted))
    return Step(after, Receipt(len(report.points)), points, losses)


def _moved(mark: Mark, report: Report, name: BatchName, points: Sequence[MetricPoint]) -> Mark:
    """Return the mark after ``points``, the new ones at the end of the report."""
    newest = max(point.timestamp for point in points)
    dropped, refused_batches = report.dropped, 0
    if name.seq == mark.seq:
        newest = max(newest, mark.newest or newest)
        dropped = max(dropped, mark.told)
        refused_batches = mark.refused_batches
    upto = name.offset + len(report.points)
    return replace(
        mark,
        seq=name.seq,
        upto=upto,
        of=max(name.of, upto),
        refused_batches=refused_batches,
        told=dropped,
        newest=newest,
        complete_until=newest if upto >= name.of else mark.complete_until,
        received_at=report.received_at,
    )


def _losses(
    mark: Mark, report: Report, points: Sequence[MetricPoint], missing: _Missing, evicted: int
) -> Iterator[Loss]:
    """Yield what is missing before ``points``, and why."""
    if not (missing.rejected or evicted or missing.batches):
        return
    until = min(point.timestamp for point in points)
    if missing.rejected:
        yield _loss("rejected", mark, report, until, missing.rejected, missing.whole)
    if evicted or missing.batches:
        reason = "evicted" if evicted else "gap"
        yield _loss(reason, mark, report, until, evicted, missing.batches)


def _plus(mark: Mark, **counts: int) -> Mark:
    """Return the mark with these counts added, each at most what a column holds."""
    return replace(
        mark, **{name: min(_LARGEST, getattr(mark, name) + more) for name, more in counts.items()}
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
