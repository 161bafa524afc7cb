"""A report as a record of the journal: what came, and everything that was decided about it.

    record      MessagePack array: 2, node, arrival, how many points of the body are stored, indexes
                of those that are not, marks after it, losses, keys of marks that are not kept, body
    body        the points as the wire has them, gzip; empty if none of them is stored

The points keep the form in which they came: it is specified, checked when read, and costs nothing
to make. Reading a record decides nothing: which points are new depends on the marks before it, and
which are ahead on a clock, so both are written down. Marks and losses may gain fields at their
ends; any other change is a new version.

Releases up to 0.1.0 wrote the report alone, and decided again when they read it:

    record      1, node, arrival, address, batch or nil, predecessor or nil, dropped, whether it was
                rejected whole, indexes of points rejected as ahead, body
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Final

import msgspec
from isal import isal_zlib
from isal.igzip_lib import IsalError

from plexd.api import BatchName, MetricBatch, Predecessor, decode_batch
from plexd_server.store.marks import Mark  # noqa: TC001 -- msgspec reads the annotations
from plexd_server.store.port import Loss, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.api import MetricPoint

# No report, but as large as a large one: a full disk still has room for a few bytes.
TRIAL: Final = bytes(1024 * 1024)
_VERSION: Final = 2
_GZIP: Final = 31  # zlib's number for a gzip header
_FASTEST: Final = 0


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a report adds to the store.

    Attributes:
        version: 2.
        node_id: the node that sent it.
        received_at: when it arrived.
        points: how many of the body's points are stored.
        omitted: which of them, by index, are not.
        marks: the marks that it moved, as they are after it.
        losses: what it showed to be missing.
        removed: the node's epochs of which the marks are not kept any more.
        packed: the body, compressed.
    """

    version: int
    node_id: str
    received_at: datetime
    points: int
    omitted: tuple[int, ...]
    marks: tuple[Mark, ...]
    losses: tuple[Loss, ...]
    removed: tuple[str, ...]
    packed: bytes

    @classmethod
    def of(
        cls,
        report: Report,
        stored: Sequence[MetricPoint],
        marks: Sequence[Mark] = (),
        losses: Sequence[Loss] = (),
        removed: Sequence[str] = (),
    ) -> Record:
        """Return the record of a report of which the points ``stored`` are stored, in order."""
        packed = b""
        if stored:
            text = report.body or MetricBatch(report.points).to_json()
            packed = isal_zlib.compress(text, _FASTEST, _GZIP)
        omitted = tuple(_omitted(report.points, stored)) if packed else ()
        return cls(
            _VERSION,
            report.node_id,
            report.received_at,
            len(stored),
            omitted,
            tuple(marks),
            tuple(losses),
            tuple(removed),
            packed,
        )

    @property
    def weight(self) -> int:
        """Return how many points it counts as; if none counted, what waits had no bound."""
        return max(1, self.points)

    def body(self) -> bytes:
        """Return the points as they came, as JSON; empty if none is stored."""
        return isal_zlib.decompress(self.packed, _GZIP) if self.packed else b""


class _OldRecord(msgspec.Struct, array_like=True, frozen=True):
    version: int
    node_id: str
    received_at: datetime
    address: str
    name: BatchName | None
    after: Predecessor | None
    dropped: int
    is_rejected: bool
    ahead: tuple[int, ...]
    body: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_OLD_DECODER = msgspec.msgpack.Decoder(_OldRecord)
_OLD_START: Final = b"\x9a\x01"  # an array of ten, version 1
_NEW_START: Final = b"\x99\x02"


def encode_record(record: Record) -> bytes:
    """Return the bytes of a record."""
    return _ENCODER.encode(record)


def decode_record(payload: bytes) -> Record | Report | None:
    """Return what a record holds: a `Report` if an earlier release wrote it, None for a trial.

    Raises `ValueError` if it is no record, or one of a later version.
    """
    if payload == TRIAL:
        return None
    try:
        if payload.startswith(_OLD_START):
            return _old_report(_OLD_DECODER.decode(payload))
        if payload.startswith(_NEW_START):
            return _DECODER.decode(payload)
    except (msgspec.MsgspecError, IsalError) as err:  # type: ignore[misc]  # as in body.py
        raise ValueError(str(err)) from err
    raise ValueError("no record of this version, or one that a newer server wrote")


def _old_report(found: _OldRecord) -> Report:
    points = decode_batch(isal_zlib.decompress(found.body, _GZIP)) if found.body else ()
    return Report(
        found.node_id,
        points,
        found.received_at,
        found.name,
        found.after,
        found.dropped,
        found.ahead,
        found.is_rejected,
        found.address,
        unknown_keys=points.unknown_keys if isinstance(points, MetricBatch) else 0,
    )


def _omitted(points: Sequence[MetricPoint], stored: Sequence[MetricPoint]) -> Iterator[int]:
    """Yield the indexes of the points that are not among those stored, which have their order."""
    if len(points) == len(stored):
        return
    expected = iter(stored)
    wanted = next(expected, None)
    for index, point in enumerate(points):
        if point is wanted:
            wanted = next(expected, None)
        else:
            yield index
