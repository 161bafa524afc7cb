"""What commands print: tables for people and JSON for programs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from plexd.console import note, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]], *, none: str) -> None:
    """Print columns as wide as their widest cell; without rows, only note ``none``."""
    cells = [[as_cell(cell) for cell in row] for row in rows]
    if not cells:
        note(none)
        return
    cells.insert(0, list(header))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    put("".join(f"{line}\n" for line in lines))


def as_cell(value: object) -> str:
    """Return a value for a terminal, which no text of a node can then control."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text) or "-"


def print_json(value: Any) -> None:
    """Print one JSON document; times end in ``Z``."""
    put(f"{msgspec.json.format(msgspec.json.encode(value), indent=2).decode()}\n")
