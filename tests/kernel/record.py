"""Record the dumps of a real kernel again: ``PYTHONPATH=tests python -m kernel.record``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kernel.machine import run_machine
from kernel.recordings import Recording, save, without_secrets

if TYPE_CHECKING:
    from kernel.results import Reading

__all__: list[str] = []


def _recording(reading: Reading) -> Recording:
    (family,), dump, *_ = reading.conversations
    return without_secrets(Recording(family, list(dump), f"{reading.shown}\n"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        results = run_machine(Path(directory))
    save("two-peers", _recording(results.pair))
    save("thousand-peers", _recording(results.thousand))
    save("interrupted", _recording(results.interrupted)._replace(shown=""))
    sys.stdout.write(
        f"{results.kernel}: up after {results.booted_seconds} s, done at {results.done_seconds} s\n"
    )
