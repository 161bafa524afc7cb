"""Standard output and standard error, written to directly.

Python's own buffers keep what could not be written, try once more at exit and then change the
exit status; a reader who has left (``| head``) would show up as a traceback.
"""

from __future__ import annotations

import os
from contextlib import suppress

from plexd.agent.errors import OutputError

__all__ = ["STDOUT", "complain", "guard_descriptors", "put"]

_STDIN, STDOUT, _STDERR = 0, 1, 2


def put(output: str | bytes) -> None:
    """Write ``output`` to standard output; silently stop when its reader has left.

    Raises `OutputError` when it cannot be written for another reason, such as a full disk.
    """
    data = output if isinstance(output, bytes) else output.encode("utf-8", "backslashreplace")
    try:
        _write(STDOUT, data)
    except BrokenPipeError:
        return
    except OSError as err:
        raise OutputError(f"cannot write to standard output: {err.strerror}") from None


def complain(sentence: str) -> None:
    """Write one line to standard error, in the program's name. Never fails."""
    # A message may quote a path with a line break in it.
    line = "".join(char if char.isprintable() else "?" for char in sentence)
    with suppress(OSError):
        _write(_STDERR, f"plexd: {line}\n".encode("utf-8", "backslashreplace"))


def guard_descriptors() -> None:
    """Occupy closed standard descriptors, so that no file opened later is taken for one of them.

    Writing to a standard output that was closed keeps failing, as it should.
    """
    for descriptor in (_STDIN, STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is handed out, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == STDOUT else os.O_RDWR)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
