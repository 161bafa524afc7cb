"""Standard output and error, written to directly; the standard descriptors, kept from other use."""

from __future__ import annotations

import os
from contextlib import suppress

from plexd_server.errors import OutputError

__all__ = ["complain", "guard_descriptors", "note", "put"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def put(text: str) -> None:
    """Write to standard output now. Raises `OutputError` when it cannot be written.

    Python's own buffer would try once more at exit and change the exit status.
    """
    try:
        _write(_STDOUT, text)
    except OSError as err:
        raise OutputError(f"cannot write to standard output: {err.strerror}") from None


def complain(sentence: str) -> None:
    """Write one line to standard error, in the program's name. Never fails."""
    note(f"plexd-server: {sentence}")


def note(sentence: str) -> None:
    """Write one line to standard error. Never fails."""
    # A message may quote a path with a line break in it.
    line = "".join(char if char.isprintable() else "?" for char in sentence)
    with suppress(OSError):
        _write(_STDERR, f"{line}\n")


def guard_descriptors() -> None:
    """Occupy closed standard descriptors, so that no file opened later is taken for one of them.

    Writing to a standard output that was closed keeps failing, as it should.
    """
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is handed out, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == _STDOUT else os.O_RDWR)


def _write(descriptor: int, text: str) -> None:
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    while rest:
        rest = rest[os.write(descriptor, rest) :]
