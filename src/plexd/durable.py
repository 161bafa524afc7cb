"""Files and directories that survive a power cut, and files that only their owner may read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a directory, durable. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory (0700) with a durable name, unless it exists. Raises `OSError`."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    sync(path.parent)


def create_private(path: Path) -> BinaryIO:
    """Create a file (0600) and open it for writing. Raises `OSError`, also if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def open_to_read(path: Path) -> BinaryIO:
    """Open a file for reading without waiting: a pipe that nobody writes to is empty.

    Raises `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    try:
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def write_private(path: Path, content: bytes) -> None:
    """Create a file (0600) with durable content; `sync` its directory to make its name durable."""
    with create_private(path) as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
