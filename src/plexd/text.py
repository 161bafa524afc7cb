"""Text from outside, made safe to print on one line."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LONGEST = 60


def printable(text: str | Path) -> str:
    """``text`` with every character escaped that could move the cursor or break the line."""
    plain = str(text)
    return plain if plain.isprintable() else plain.encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """``text`` in quotes, printable and cut to a length that fits a message."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f'"{printable(cut)}"'


def without_line_end(text: str) -> str:
    """``text`` without one line break at its end, which editors and ``echo`` leave there."""
    return text.removesuffix("\n").removesuffix("\r")


def nearest(name: str, known: Iterable[str]) -> str:
    """A question to append to a message, or nothing when no known name looks like ``name``."""
    close = difflib.get_close_matches(name[:_LONGEST], list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
