"""The archive that a kernel unpacks as its first root directory.

``newc`` (``Documentation/driver-api/early-userspace/buffer-format.rst`` of Linux): per entry a
magic, thirteen numbers of eight hexadecimal digits, the name with its NUL and the content, the
last two padded to four bytes::

    070701  inode mode uid gid links mtime size  major minor  rmajor rminor  name-size  0

An entry called ``TRAILER!!!`` ends it.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Entry", "encode_archive"]


class Entry(Struct, frozen=True):
    """One file, or a character device if it has a number; ``name`` is without a leading slash."""

    name: str
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o755
    mtime: int = 0
    device: tuple[int, int] = (0, 0)


def encode_archive(entries: Iterable[Entry]) -> bytes:
    """Encode the entries in order, each after the directories that contain it."""
    named = [*_with_directories(entries), Entry("TRAILER!!!", mode=0)]
    return b"".join(_encode(inode, entry) for inode, entry in enumerate(named, start=1))


def _with_directories(entries: Iterable[Entry]) -> Iterator[Entry]:
    made = set()
    for entry in entries:
        parts = entry.name.split("/")
        for depth in range(1, len(parts)):
            directory = "/".join(parts[:depth])
            if directory not in made:
                made.add(directory)
                yield Entry(directory, mode=stat.S_IFDIR | 0o755)
        yield entry


def _encode(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    numbers = (
        *(inode, entry.mode, 0, 0, 1, entry.mtime, len(entry.content)),
        *(0, 0, *entry.device, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
    return _padded(head) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
