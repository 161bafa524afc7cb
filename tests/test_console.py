from __future__ import annotations

import argparse
import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.console import OutputError, Parser, complain, guard_descriptors, put, show_traceback
from plexd.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    Captured = pytest.CaptureFixture[str]


def _failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_output_is_written_whole_as_text_or_bytes(
    capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
        put("é\udcff\n")
        put(b"bytes\n")
    assert capfd.readouterr().out == "é\\udcff\nbytes\n"


def test_a_reader_that_has_ended_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", _failing(errno.EPIPE))
        put("nobody reads this")
        complain("plexd", "nor this")


def test_output_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", _failing(errno.ENOSPC))
        with pytest.raises(OutputError, match=r"^cannot write to standard output: No space left"):
            put("data")


def test_a_complaint_is_one_line_even_if_it_quotes_line_breaks(capfd: Captured) -> None:
    complain("plexd", "a\nplexd: forged\x1b[31m")
    assert capfd.readouterr().err == "plexd: a?plexd: forged?[31m\n"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x9b31m", "\\u009b31m"),
        ("\x1b[31m", "\\u001b[31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066\u2069\u200f\u061c\u200b\ufeff", "\\u2066\\u2069\\u200f\\u061c\\u200b\\ufeff"),
        ("\x7f\x00\r\x08", "\\u007f\\u0000\\r\\b"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("\udc9b", "\\udc9b"),
        ("line\n\tand Grüße, 日本\n", "line\n\tand Grüße, 日本\n"),
    ],
    ids=ascii,
)
def test_text_that_a_terminal_would_act_on_is_escaped(
    raw: str, shown: str, capfd: Captured
) -> None:
    put(raw)
    assert capfd.readouterr().out == shown


@given(st.text(st.characters(exclude_characters="\n\t")))
def test_a_json_document_stays_the_same_and_becomes_harmless(text: str) -> None:
    document = json.dumps({"name": text}, ensure_ascii=False)

    assert json.loads(escaped(document)) == {"name": text}
    assert escaped(document).isprintable()


def test_a_fault_of_the_program_is_shown_with_its_place_and_nothing_raw(capfd: Captured) -> None:
    try:
        raise KeyError("\x9b31m\u202e", "plexd-join-canary")  # noqa: TRY301 -- with a traceback
    except KeyError as error:
        show_traceback(error)

    said = capfd.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.replace("\n", "").isprintable()
    assert "canary" not in said.partition("KeyError")[2]


def test_a_token_in_a_message_is_redacted(capfd: Captured) -> None:
    complain("plexd", "cannot read 'plexd-join-abc_DEF-1'; see plexd-join-…")
    assert capfd.readouterr().err == (
        "plexd: cannot read 'plexd-join-[redacted]'; see plexd-join-…\n"
    )


def test_a_closed_descriptor_is_opened_before_a_file_can_get_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[str, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", _failing(errno.EBADF))
        patched.setattr(os, "open", lambda path, flags: opened.append((path, flags)))
        guard_descriptors()
    assert opened == [
        ("/dev/null", os.O_RDWR),
        ("/dev/null", os.O_RDONLY),
        ("/dev/null", os.O_RDWR),
    ]


@pytest.mark.parametrize("columns", ["", "20", "60", "200", "0", "-1", "wide"])
def test_help_is_as_wide_as_argparse_makes_it(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parser = Parser(prog="plexd")
    parser.add_argument("--option", help="words " * 50)
    found = parser.format_help()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    assert found == parser.format_help()
