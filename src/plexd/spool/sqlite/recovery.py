"""What became of every point, worked out whenever a spool is opened.

There are three sources: ``meta`` in the database, the watermark beside it, which is written after
every commit, and the rows. ``docs/spec/spool.md`` has which is believed when.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from plexd.spool.errors import disk_errors
from plexd.spool.meta import Meta
from plexd.spool.sqlite.files import HeldFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plexd.spool.chain import Chain
    from plexd.spool.rows import Outline
    from plexd.spool.sqlite.tables import SpoolTables

_MAGIC = b"PLXMARK1"
_FORM = struct.Struct(">8s5Q")
_BYTES = 64


class Watermark(NamedTuple):
    """How far the database had come, number by number as in ``docs/spec/spool.md``."""

    version: int
    appended: int
    waiting: int
    lost: int
    front: int

    def encode(self) -> bytes:
        """Return the file's content: 64 bytes."""
        body = _FORM.pack(_MAGIC, *self)
        return body + _digest(body)

    @classmethod
    def decode(cls, content: bytes) -> Watermark | None:
        """Return the watermark, None if it is not what was written."""
        body, digest = content[: _FORM.size], content[_FORM.size :]
        if digest != _digest(body) or not body.startswith(_MAGIC):
            return None
        return cls(*_FORM.unpack(body)[1:])


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16, person=b"plexd.mark").digest()


class WatermarkFile(HeldFile):
    """The file of the watermark, held open."""

    def read(self) -> Watermark | None:
        """Return what is there, None if it is not what was written."""
        with suppress(OSError):
            return Watermark.decode(os.pread(self.fd, _BYTES, 0))
        return None

    def note(self, meta: Meta, front: int) -> None:
        """Replace it after a commit; on return it is on the disk. Raises `DiskError`."""
        content = Watermark(meta.version, meta.appended, meta.waiting, meta.lost, front).encode()
        with disk_errors():
            if os.pwrite(self.fd, content, 0) != _BYTES:
                raise OSError("the mark was written in part")
            os.fdatasync(self.fd)


def recover(tables: SpoolTables, watermark: Watermark | None) -> tuple[Meta, str]:
    """Return the ``meta`` to continue with, and what went wrong; empty if nothing did.

    Drops the rows that had left. Raises `DiskError` and `DamagedError`.
    """
    meta, loss = _believed(tables, watermark)
    waiting, missing = _count_points(meta.chain, tables.outlines())
    if waiting < meta.waiting:
        loss = loss or "rows are missing"
        meta.chain.lose(max(0, meta.waiting - waiting - missing))
        meta.damaged += meta.waiting - waiting
    return meta, loss


def _believed(tables: SpoolTables, watermark: Watermark | None) -> tuple[Meta, str]:
    """Trust ``meta`` unless the watermark is later; without either, what is there."""
    meta = tables.read_meta()
    if meta is not None and (watermark is None or watermark.version <= meta.version):
        return meta, "" if watermark is not None else "its mark is damaged or missing"
    last, loss = tables.last_id(), "its last changes are missing"
    if watermark is None:
        watermark = Watermark(0, appended=last, waiting=tables.measure().points, lost=0, front=0)
        loss = "its account and its mark are damaged or missing" if last else ""
    meta = meta or Meta(appended=last)
    _drop_passed(tables, meta.chain, watermark.front)
    _catch_up(meta, watermark)
    return meta, loss


def _catch_up(meta: Meta, watermark: Watermark) -> None:
    """Count what the database never got as lost, unless it was delivered or dropped before."""
    tail = min(watermark.waiting, max(0, watermark.appended - meta.appended))
    meta.damaged += max(0, watermark.lost - meta.lost) + tail
    meta.version = watermark.version
    meta.appended = max(meta.appended, watermark.appended)
    meta.acknowledged = meta.appended - meta.lost - (watermark.waiting - tail)
    meta.chain.lose(tail)


def _drop_passed(tables: SpoolTables, chain: Chain, front: int) -> None:
    """Drop the rows up to the number ``front``, which had left although they are there again.

    They count as delivered: the control plane misses them if they were not.
    """
    with tables.transaction():
        for row in itertools.takewhile(lambda row: row.id <= front, tables.outlines()):
            chain.reach(row.epoch)
            chain.acknowledge(row.place, row.points, 0)
            tables.drop(row.id)


def _count_points(chain: Chain, rows: Iterable[Outline]) -> tuple[int, int]:
    """Return how many points wait in ``rows``, and how many are seen to be missing between them."""
    waiting = missing = 0
    epoch, last = chain.head, chain.passed
    for row in rows:
        if row.epoch != epoch:
            epoch, last = row.epoch, 0
        missing += max(0, row.place - row.points - last)
        waiting += max(0, min(row.points, row.place - last))
        last = row.place
    return waiting, missing
