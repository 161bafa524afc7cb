"""How much a spool may keep, and how long: ``max_bytes`` is shared out so that no file takes more.

max_bytes = rows + one transaction in the -wal + the -wal between checkpoints
            + ballast + what a database needs when it is empty
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import timedelta

PAGE_BYTES = 4096
# The most a row takes beside its body; ``docs/spec/spool.md`` has what for.
ROW_BYTES = 2304
_EMPTY_BYTES = 64 * 1024
_MIB = 1024 * 1024
_FOR_EVER_MS = 100 * 365 * 86_400_000


class Budget(Struct, frozen=True):
    """What each part may take in bytes, and the age at which points expire.

    The parts are those of the bounds in ``docs/spec/spool.md``. ``pages`` are the most pages of the
    database, should all of this be wrong.
    """

    rows: int
    transaction: int
    checkpoint: int
    ballast: int
    pages: int
    max_age_ms: int

    @classmethod
    def of(cls, max_bytes: int, max_age: timedelta) -> Budget:
        """Share out ``max_bytes``, which is meant to be 1 MiB or more."""
        ballast = min(_MIB, max_bytes // 16)
        checkpoint = min(_MIB, max_bytes // 16)
        transaction = min(16 * _MIB, max_bytes // 8)
        # Half as much again, because a transaction also writes the pages it takes rows out of.
        rows = max_bytes - ballast - checkpoint - transaction * 3 // 2 - _EMPTY_BYTES
        return cls(
            rows=max(rows, max_bytes // 4),
            transaction=transaction,
            checkpoint=checkpoint,
            ballast=ballast,
            pages=max(32, (max_bytes - ballast - checkpoint) // PAGE_BYTES),
            max_age_ms=int(max_age.total_seconds() * 1000),
        )

    @classmethod
    def in_memory(cls, max_bytes: int, max_age_ms: int = _FOR_EVER_MS) -> Budget:
        """Return the shares of a log in memory."""
        return cls(max_bytes, max_bytes, checkpoint=0, ballast=0, pages=0, max_age_ms=max_age_ms)
