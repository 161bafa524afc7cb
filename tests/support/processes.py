"""Programs that a test starts."""

from __future__ import annotations

import shutil
from typing import Final

__all__ = ["ending_with_us"]

_SETPRIV: Final = shutil.which("setpriv")  # of util-linux


def ending_with_us(*line: str) -> list[str]:
    """Return the command line that runs ``line`` and is killed when this thread dies.

    A test that is killed ends nothing itself. The kernel sends the signal (PR_SET_PDEATHSIG in
    prctl(2)), which the program keeps when it starts another one in its place.
    """
    return [*([_SETPRIV, "--pdeathsig", "KILL"] if _SETPRIV else []), *line]
