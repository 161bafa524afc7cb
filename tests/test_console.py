from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from plexd.console import OutputError, complain, guard_descriptors, put

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
