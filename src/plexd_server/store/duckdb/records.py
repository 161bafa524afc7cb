"""A report as a record of the journal.

    record      MessagePack array: version, node, arrival, address, batch or nil, predecessor or
                nil, dropped, whether it was rejected whole, indexes of points rejected as ahead,
                body
    body        the points as the wire has them, gzip; empty if there are none

The points keep the form in which they came: it is specified, checked when read, and costs nothing
to make. What depends on the clock was decided when they came, so that reading the record again
decides nothing.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import Final

import msgspec
from isal import isal_zlib
from isal.igzip_lib import IsalError

from plexd.api import BatchName, MetricBatch, Predecessor, decode_batch
from plexd_server.store.port import Report

# No report, but as large as a large one: a full disk still has room for a few bytes.
TRIAL: Final = bytes(1024 * 1024)
_VERSION: Final = 1
_GZIP: Final = 31  # zlib's number for a gzip header
_FASTEST: Final = 0


class _Record(msgspec.Struct, array_like=True, frozen=True):
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
_DECODER = msgspec.msgpack.Decoder(_Record)


def encode_record(report: Report) -> bytes:
    """Return the record of a report."""
    body = b""
    if report.points:
        text = report.body or MetricBatch(report.points).to_json()
        body = isal_zlib.compress(text, _FASTEST, _GZIP)
    return _ENCODER.encode(
        _Record(
            _VERSION,
            report.node_id,
            report.received_at,
            report.address,
            report.name,
            report.after,
            report.dropped,
            report.is_rejected,
            tuple(report.ahead),
            body,
        )
    )


def decode_record(record: bytes) -> Report | None:
    """Return the report of a record; None for a trial. Raises `ValueError` if it is no record."""
    if record == TRIAL:
        return None
    try:
        found = _DECODER.decode(record)
        if found.version != _VERSION:
            raise ValueError(f"a record of version {found.version}, written by a newer server")
        points = decode_batch(isal_zlib.decompress(found.body, _GZIP)) if found.body else ()
    except (msgspec.MsgspecError, IsalError) as err:  # type: ignore[misc]  # as in body.py
        raise ValueError(str(err)) from err
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
