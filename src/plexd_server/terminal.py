"""Standard output, written to directly, and the standard descriptors, kept from other use."""

from __future__ import annotations

import os

from plexd_server.errors import OutputError

__all__ = ["guard_descriptors", "put"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def put(text: str) -> None:
    """Write to standard output now. Raises `OutputError` when it cannot be written.

    Python's own buffer would try once more at exit and change the exit status.
    """
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    try:
        while rest:
            rest = rest[os.write(_STDOUT, rest) :]
    except OSError as err:
        raise OutputError(f"cannot write to standard output: {err.strerror}") from None


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
