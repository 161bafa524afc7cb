"""A damaged byte at every position of every file of a spool (C01).

Each case is a copy of one spool as a killed agent leaves it, with one byte flipped or zeroed, or
cut off from there. A spool is opened on it, delivers everything and is asked for its account.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from support.corrupting import Specimen

__all__ = ["EveryByte", "damage_every_byte"]


class EveryByte:
    """What came of how many cases.

    Attributes:
        outcomes: cases by what an agent made of them.
        altered: cases after which another point than was collected was delivered.
        wrong: cases after which anything else was not as it has to be, such as a loss not told.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.altered = 0
        self.wrong = 0

    @property
    def cases(self) -> int:
        return self.outcomes.total() + self.altered + self.wrong

    async def take(self, specimen: Specimen, name: str, kind: str, position: int) -> None:
        """Try one case."""
        try:
            self.outcomes[await specimen.outcome(name, kind, position)] += 1
        except Exception as err:  # noqa: BLE001  # whatever a spool raises here is wrong
            sys.stderr.write(f"{name} {kind} {position}: {err!r:.300}\n")
            if "altered" in str(err):
                self.altered += 1
            else:
                self.wrong += 1


async def damage_every_byte(stride: int = 1) -> EveryByte:
    """Damage every ``stride``-th byte of each file, in each way."""
    done = EveryByte()
    # One line of the log a case is not read by anybody.
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(dir=_in_memory()) as made:
            specimen = await Specimen.make(Path(made))
            for case in specimen.cases(stride):
                await done.take(specimen, *case)
    finally:
        logging.disable(logging.NOTSET)
    return done


def _in_memory() -> str | None:
    """A directory that needs no disk, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
