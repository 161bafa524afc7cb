"""The clocks by which points age, and names for the lives of a spool.

Two machines may go on from one state: a copied data directory, an image that was cloned, a
snapshot of a machine's memory. What they name afterwards must not have the same names.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.spool.meta import Meta

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_LARGEST_STEP_MS: Final = 60_000
# 2025-01-01. A machine without a clock of its own begins in 1970, or where it was switched off.
_EARLIEST_WALL_MS: Final = 1_735_689_600_000


def boot_id() -> str:
    """Return what Linux calls this boot of the machine (random(4)); empty where it does not."""
    return _text(_BOOT_ID)


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text("ascii").strip()
    return ""


class SteadyClock:
    """The spool's own clock: continues where the last process left it; never goes back.

    What it goes by is in ``docs/spec/spool.md``. Nothing expires because a wall clock is set.
    """

    def __init__(self, clock: Clock, meta: Meta) -> None:
        self._clock = clock
        self._boot = boot_id()
        self._start = meta.steady_ms + max(0, self._away_ms(meta)) - self._monotonic_ms()
        self._offset = self._wall_ms() - self._monotonic_ms()

    def _away_ms(self, meta: Meta) -> int:
        away = self._monotonic_ms() - meta.monotonic_ms
        if self._boot and self._boot == meta.boot and away >= 0:
            return away
        then, now = meta.wall_ms, self._wall_ms()
        return now - then if min(then, now) > _EARLIEST_WALL_MS else 0

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _wall_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def now_ms(self) -> int:
        """Return milliseconds since the spool was made."""
        return self._start + self._monotonic_ms()

    def stamp(self, meta: Meta) -> None:
        """Write into ``meta`` what the next process continues from."""
        meta.steady_ms, meta.monotonic_ms = self.now_ms(), self._monotonic_ms()
        meta.wall_ms, meta.boot = self._wall_ms(), self._boot

    def has_stepped(self) -> bool:
        """Return whether the wall clock was set by more than a minute since the last call.

        A machine that goes on from a snapshot of its memory, or that slept, shows it in no other
        way.
        """
        before, self._offset = self._offset, self._wall_ms() - self._monotonic_ms()
        return abs(self._offset - before) > _LARGEST_STEP_MS

    def new_epoch(self) -> str:
        """Return 32 hexadecimal digits under which no point was ever named.

        The random bits are enough, unless two machines woke up from one snapshot of a memory: then
        the clocks and the machine's ids differ.
        """
        state = hashlib.blake2b(secrets.token_bytes(16), digest_size=16, person=b"plexd.life")
        moments = (self._clock.now().timestamp(), self._clock.monotonic(), os.getpid())
        state.update(f"{moments};{boot_id()};{_text(_MACHINE_ID)}".encode())
        return state.hexdigest()
