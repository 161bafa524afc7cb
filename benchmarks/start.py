"""Claims: ``plexd --version`` takes 3 x a bare interpreter, the first collected point 0.25 s.

Wall time of whole processes, medians of interleaved runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.measure import table
from benchmarks.processes import compile_sources

ROUNDS = 21
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "plexd --version": [sys.executable, "-m", "plexd", "--version"],
    "plexd collect --json": [sys.executable, "-m", "plexd", "collect", "--json"],
}
# The 100 ms between the two CPU samples are part of a first point.
CLAIMS = {"plexd --version": "at most 3 x", "plexd collect --json": "at most 0.25 s"}


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Print seconds from start to end of each command."""
    compile_sources()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            seconds[name].append(_seconds(command))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    bare = medians["python -c pass"]
    rows = [
        [name, f"{taken:.3f} s", f"{taken / bare:.1f} x", CLAIMS.get(name, "")]
        for name, taken in medians.items()
    ]
    table("From start to exit, wall time", ["", "measured", "of python's", "claim"], rows)
