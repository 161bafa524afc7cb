"""The high-water mark beside the database: how far the database had come.

One damaged byte in a -wal makes SQLite drop the transactions after it without an error. The
watermark is written after every commit, so that such a loss is noticed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.spool.errors import DiskError

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.spool.meta import Meta

_MAGIC = b"PLXMARK1"
_FORM = struct.Struct(">8s5Q")
_DIGEST_BYTES = 16


class Watermark(Struct, frozen=True):
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
        numbers = (self.version, self.appended, self.waiting, self.lost, self.front)
        body = _FORM.pack(_MAGIC, *numbers)
        return body + _digest(body)

    @classmethod
    def of(cls, meta: Meta, front: int) -> Watermark:
        """Return the watermark that goes with ``meta``."""
        return cls(meta.version, meta.appended, meta.waiting, meta.lost, front)

    @classmethod
    def decode(cls, content: bytes) -> Watermark | None:
        """Return the watermark, None if it is not what was written."""
        body, digest = content[: _FORM.size], content[_FORM.size :]
        if len(body) != _FORM.size or digest != _digest(body) or not body.startswith(_MAGIC):
            return None
        _, *numbers = _FORM.unpack(body)
        return cls(*numbers)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES, person=b"plexd.mark").digest()


class WatermarkFile:
    """The file, held open; raises `DiskError`."""

    def __init__(self, path: Path) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(path, flags, 0o600)
        except OSError as err:
            raise DiskError.of(err) from err

    def read(self) -> Watermark | None:
        """Return what is there, None if it is not what was written."""
        try:
            return Watermark.decode(os.pread(self._fd, 4096, 0))
        except OSError:
            return None

    def write(self, watermark: Watermark) -> None:
        """Replace it; on return it is on the disk."""
        try:
            content = watermark.encode()
            if os.pwrite(self._fd, content, 0) != len(content):
                raise DiskError("the mark was written in part")
            if os.fstat(self._fd).st_size != len(content):
                os.ftruncate(self._fd, len(content))
            os.fdatasync(self._fd)
        except OSError as err:
            raise DiskError.of(err) from err

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
