"""What commands print: tables for people, JSON for programs, and identities for agents."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from plexd.console import OutputError, put, put_whole
from plexd.durable import create_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from plexd.api import Registration

__all__ = ["as_cell", "identity_file", "print_identity", "print_json", "print_table"]


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; nothing at all without rows."""
    cells = [[as_cell(cell) for cell in row] for row in rows]
    if not cells:
        return
    cells.insert(0, list(header))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    put("".join(f"{line}\n" for line in lines))


def as_cell(value: object) -> str:
    """A value for a terminal: whatever a machine told of itself cannot steer it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text) or "-"


def print_json(value: Any) -> None:
    """One JSON document; times end in ``Z``."""
    put(f"{msgspec.json.format(msgspec.json.encode(value), indent=2).decode()}\n")


def print_identity(identity: Registration, out: BinaryIO | None) -> None:
    """The agent's identity file. Raises `OutputError` unless it arrived."""
    text = f"{msgspec.json.encode(identity).decode()}\n"
    if out is None:
        put_whole(text)
        return
    try:
        out.write(text.encode())
        out.flush()
        os.fsync(out.fileno())
    except OSError as err:
        raise OutputError(f"cannot write the identity: {err.strerror}") from err


@contextmanager
def identity_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """A new file (0600), removed again if the body raises; None without a path.

    Made ahead of what goes into it: secrets that have nowhere to go are of no use.
    """
    if path is None:
        yield None
        return
    try:
        out = create_private(path)
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror}") from err
    with out:
        try:
            yield out
        except BaseException:
            path.unlink(missing_ok=True)
            raise
