"""The high-water mark beside the database: how far the database had come.

One damaged byte in a -wal makes SQLite drop the transactions after it without an error. The
watermark is written after every commit, so that such a loss is noticed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from plexd.spool.errors import DiskError, disk_errors
from plexd.spool.sqlite.files import HeldFile

if TYPE_CHECKING:
    from plexd.spool.meta import Meta

_MAGIC = b"PLXMARK1"
_FORM = struct.Struct(">8s5Q")
_BYTES = 64


class Watermark(NamedTuple):
    """``meta`` as of its ``version``.

    ``front`` is the number before the oldest waiting point, in the stream of all points.
    """

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
    """The file, held open.

    ``trouble`` is why the last one could not be written, although what was committed is safe.
    """

    trouble: DiskError | None = None

    def read(self) -> Watermark | None:
        """Return what is there, None if it is not what was written."""
        with suppress(OSError):
            return Watermark.decode(os.pread(self.fd, _BYTES, 0))
        return None

    def note(self, meta: Meta, front: int) -> None:
        """Replace it after a commit; on return it is on the disk, or there is ``trouble``."""
        mark = Watermark(meta.version, meta.appended, meta.waiting, meta.lost, front)
        try:
            with disk_errors():
                self._write(mark.encode())
        except DiskError as err:
            self.trouble = err

    def _write(self, content: bytes) -> None:
        if os.pwrite(self.fd, content, 0) != len(content):
            raise OSError("the mark was written in part")
        os.fdatasync(self.fd)
