"""What reading the machine can end in.

Exception
└── ProcfsError     no reading this time: log it and try again at the next cycle
"""

from __future__ import annotations


class ProcfsError(Exception):
    """A source could not be read, or says what cannot be true.

    The text is ``<source>: <reason>``, for example ``/proc/meminfo: no MemAvailable``;
    ``source`` is the file or the mount point. The operating system's error, if there was one,
    is chained.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"
