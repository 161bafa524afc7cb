"""The reason of an answer, and its ``Retry-After``."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.api import Secret
from plexd.api.answers import parse_reason, parse_retry_after, without_half_characters
from support.points import NOW

REASONS = {
    "a problem document": (b'{"title": "Bad", "detail": "point 3 is naive"}', "point 3 is naive"),
    "a problem without detail": (b'{"title": "Too many points"}', "Too many points"),
    "a message": (b'{"message": "no such node"}', "no such node"),
    "an error": (b'{"error": "quota"}', "quota"),
    "JSON that says nothing": (b'{"code": 5}', '{"code": 5}'),
    "members that are no text": (b'{"detail": 5, "error": "quota"}', "quota"),
    "an array": (b"[1, 2]", "[1, 2]"),
    "text": (b"  try later\n", "try later"),
    "HTML": (b"<html>\n<body>Bad\tGateway</body></html>", "<html> <body>Bad Gateway</body></html>"),
    "nothing": (b"", "Service Unavailable"),
    "blanks": (b" \r\n\t ", "Service Unavailable"),
    "a blank detail": (b'{"detail": "  "}', "Service Unavailable"),
    "control characters": (b"\x1b[31mred\x00\r\nInjected: line\x07", "[31mred Injected: line"),
    "text that turns around": ("a\u202eb\u2028c".encode(), "a b c"),
    "broken UTF-8": (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
    "truncated JSON": (b'{"detail": "x', '{"detail": "x'),
    "JSON of great depth": (b"[" * 60_000, "[" * 299 + "…"),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_one_printable_line(name: str) -> None:
    body, expected = REASONS[name]
    assert parse_reason(503, body) == expected


def test_a_long_reason_is_cut_with_an_ellipsis() -> None:
    assert parse_reason(500, b"x" * 301) == "x" * 299 + "…"
    assert parse_reason(500, b"x" * 300) == "x" * 300


def test_an_undefined_status_has_a_reason_too() -> None:
    assert parse_reason(599, b"") == "no reason given"


def test_a_token_the_server_repeats_is_not_repeated() -> None:
    said = b'{"detail": "unknown token hunter2"}'
    assert parse_reason(401, said, hide=Secret("hunter2")) == "unknown token [redacted]"
    long = b"x" * 290 + b"hunter2"
    assert "hunt" not in parse_reason(401, long, hide=Secret("hunter2"))


@given(st.integers(100, 999), st.binary(max_size=2000))
def test_any_body_gives_a_short_printable_reason(status: int, body: bytes) -> None:
    reason = parse_reason(status, body)
    assert 0 < len(reason) <= 300
    assert reason.isprintable()


YEAR = timedelta(days=365)
WAITS = {
    "0": timedelta(),
    "5": timedelta(seconds=5),
    " 7 ": timedelta(seconds=7),
    "007": timedelta(seconds=7),
    "1000000000": YEAR,
    "9" * 5000: YEAR,
    "-1": None,
    "+5": None,
    "1.5": None,
    "1e3": None,
    "٣": None,
    "": None,
    "soon": None,
    "5, 6": None,
    "2026-02-12T10:31:00Z": None,
    "Thu, 12 Feb 2026 10:31:00 GMT": timedelta(minutes=1),
    "Thursday, 12-Feb-26 10:31:00 GMT": timedelta(minutes=1),
    "Thu Feb 12 10:31:00 2026": timedelta(minutes=1),
    "Thu, 12 Feb 2026 11:31:00 +0100": timedelta(minutes=1),
    "Thu, 12 Feb 2026 10:31:00 -0000": timedelta(minutes=1),
    "Thu, 12 Feb 2026 10:29:00 GMT": timedelta(),
    "Mon, 01 Jan 1990 00:00:00 GMT": timedelta(),
    "Fri, 31 Dec 9999 23:59:59 -2359": YEAR,
    "Sat, 01 Jan 0001 00:00:00 +2359": timedelta(),
    "Thu, 31 Feb 2026 10:31:00 GMT": None,
    "Thu, 12 Feb 2026 10:31:00 +2400": None,
    "Thu, 12 Feb 99999999999999999999 10:31:00 GMT": None,
    "Thu, 12 Feb 2026 10:31:00 +99999999999999999999": None,
}


@pytest.mark.parametrize("value", WAITS, ids=lambda value: value[:50] or "empty")
def test_retry_after_is_read_in_both_forms_and_never_negative(value: str) -> None:
    assert parse_retry_after(value, NOW) == WAITS[value]


def test_no_header_is_no_wait() -> None:
    assert parse_retry_after(None, NOW) is None


@pytest.mark.slow
@given(st.text(max_size=60) | st.from_regex(r"\A[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:+ -]+\Z"))
def test_any_retry_after_gives_a_bounded_wait_or_none(value: str) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or timedelta() <= wait <= YEAR


@given(st.integers(0, 360 * 86400))
def test_both_forms_mean_the_same(seconds: int) -> None:
    wait = timedelta(seconds=seconds)
    assert parse_retry_after(str(seconds), NOW) == wait
    assert parse_retry_after(format_datetime(NOW + wait, usegmt=True), NOW) == wait


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"a\uDFFFb"', "a\ufffdb"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00\ude00"', "\ufffd\U0001f600\ufffd"),
        (rb'"\\ud800"', "\\ud800"),
        (rb'"\\\ud800\n"', "\\\ufffd\n"),
        (rb'"\u00e4"', "\u00e4"),
    ],
)
def test_half_a_character_is_replaced_and_nothing_else(body: bytes, read: str) -> None:
    assert json.loads(without_half_characters(body)) == read


def test_a_body_full_of_escapes_takes_no_time() -> None:
    body = rb'"\ud800' + rb"\n" * 20_000 + b'"'
    assert without_half_characters(body) == body
