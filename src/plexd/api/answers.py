"""Reading what a server says beside its status: why it refused, and how long to wait."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from plexd.api.secret import Secret

_LONGEST_REASON = 300
_LONGEST_WAIT = timedelta(days=365)
# Both halves of a character beyond U+FFFF, or one half alone, or any other escape.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][\da-fA-F]{2})|.)"
)
_MOST_ESCAPES = 20_000
_REASON_MEMBERS = ("detail", "message", "error", "title")


def parse_reason(status: int, body: bytes, *, hide: Secret | None = None) -> str:
    """Return the server's reason in one printable line of at most 300 characters.

    It comes from a problem document (RFC 9457) or the usual JSON members, else from the text, else
    from the status itself. Control characters are dropped, and so is ``hide`` (the token of the
    request) where the server repeats it: the reason is logged.
    """
    text = _from_json(body) or body.decode("utf-8", "replace")
    if hide:
        text = text.replace(hide.reveal(), str(hide))
    return one_line(text) or _phrase(status)


def one_line(text: str) -> str:
    """Return the printable part of ``text``, spaces joined, at most 300 characters of it."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST_REASON])
    line = " ".join(line.split())
    if len(line) > _LONGEST_REASON:
        line = line[: _LONGEST_REASON - 1] + "…"
    return line


def without_half_characters(body: bytes) -> bytes:
    r"""Return JSON without ``\ud800`` and the like, halves of a character (RFC 8259, 8.2).

    Each becomes U+FFFD, as in Go's decoder. One such name is no reason to refuse all others. A body
    with more than 20,000 escapes stays as it is, since each of them takes time.
    """
    if body.count(b"\\") > _MOST_ESCAPES:
        return body
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)


def _from_json(body: bytes) -> str:
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    found = (document.get(member) for member in _REASON_MEMBERS)
    return next((text for text in found if isinstance(text, str) and text), "")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Return the wait a ``Retry-After`` header asks for (RFC 9110, 10.2.3), never negative.

    Both forms are read, seconds and HTTP date; None when the header is absent or is neither.
    Waits beyond a year are a year; the caller decides about long waits.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = int(text) if len(text) < 12 else 10**11
        return min(timedelta(seconds=min(seconds, 10**9)), _LONGEST_WAIT)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # half a megabyte, rarely needed

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta()), _LONGEST_WAIT)
