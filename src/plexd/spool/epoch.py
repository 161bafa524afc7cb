"""Names for the lives of a spool, and the moments at which a new life has to begin.

Two machines may go on from one state: a copied data directory, an image that was cloned, a
snapshot of a machine's memory. What they name afterwards must not have the same names.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.clock import Clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_LARGEST_STEP_SECONDS = 60.0


def new_epoch(clock: Clock) -> str:
    """Return 32 hexadecimal digits under which no point was ever named.

    The random bits are enough, unless two machines woke up from one snapshot of a memory: then the
    clocks and the machine's ids differ.
    """
    state = hashlib.blake2b(secrets.token_bytes(16), digest_size=16, person=b"plexd.life")
    moments = (clock.now().timestamp(), clock.monotonic(), os.getpid())
    state.update(f"{moments};{boot_id()};{_text(_MACHINE_ID)}".encode())
    return state.hexdigest()


def boot_id() -> str:
    """Return what Linux calls this boot of the machine (random(4)); empty where it does not."""
    return _text(_BOOT_ID)


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text("ascii").strip()
    return ""


class StepWatch:
    """Notices that the wall clock was set, or that the machine slept, by more than a minute.

    A machine that goes on from a snapshot of its memory shows it in no other way.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._read()

    def _read(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def has_stepped(self) -> bool:
        """Return whether the clocks moved apart since the last call, more than clocks drift."""
        before, self._offset = self._offset, self._read()
        return abs(self._offset - before) > _LARGEST_STEP_SECONDS
