"""Text from outside, made safe to print on one line."""

from __future__ import annotations

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LONGEST = 60
_PERHAPS_UNSAFE = re.compile(r"[^ -~\n\t]")
_BOOTSTRAP_TOKEN = re.compile(r"(plexd-join-)[\w-]+", re.ASCII)
_WITHOUT_SCHEME = re.compile(
    r"(?://)?((?:[\w.-]{1,253}|\[[\da-fA-F:.]{2,45}\])(?::\d{1,5})?(?:/[!-~]{0,60})?)", re.ASCII
)


def printable(text: str | Path) -> str:
    """``text`` with every character escaped that could move the cursor or break the line."""
    plain = str(text)
    return plain if plain.isprintable() else plain.encode("unicode_escape").decode("ascii")


def escaped(text: str) -> str:
    """``text`` of several lines, with what a terminal would act on escaped as in JSON.

    That are all control characters but line ends and tabs, also those beyond ASCII (U+0080 to
    U+009F), and the invisible ones that change the order or look of others. A JSON document stays
    the same document.
    """
    return _PERHAPS_UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    import json  # noqa: PLC0415 - seldom needed

    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def without_tokens(text: str) -> str:
    """``text`` without the secret part of bootstrap tokens: people give them in wrong places."""
    return _BOOTSTRAP_TOKEN.sub(r"\1[redacted]", text)


def quoted(text: str) -> str:
    """``text`` in quotes, printable and cut to a length that fits a message."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f'"{printable(cut)}"'


def decoded(data: bytes) -> str:
    """The text of a file, without a byte order mark. Raises `ValueError`, which quotes nothing."""
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):  # as the shell of Windows writes it
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    try:
        return data.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


def bare(secret: str) -> str:
    """``secret`` without a byte order mark in front and one line break at its end.

    Editors and ``echo`` leave them there, and no secret has them.
    """
    return secret.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def nearest(name: str, known: Iterable[str]) -> str:
    """A question to append to a message, or nothing when no known name looks like ``name``."""
    import difflib  # noqa: PLC0415 - only when something was mistyped

    close = difflib.get_close_matches(name[:_LONGEST], list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def with_scheme(text: str) -> str:
    """A question to append to a message about a URL, if ``text`` lacks nothing but its scheme."""
    found = _WITHOUT_SCHEME.fullmatch(text)
    return f"; did you mean https://{found[1]}?" if found else ""
