"""Claims: ``plexd --version`` within 0.15 s, the first collected point within 0.6 s of the start.

Wall time of whole processes, medians of interleaved runs, beside a bare interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.measure import table

ROUNDS = 11
# The 100 ms between the two CPU samples are part of a first point.
CLAIMS = {"plexd --version": 0.15, "plexd collect --json": 0.6, "python -c pass": None}
COMMANDS = {
    "plexd --version": [sys.executable, "-m", "plexd", "--version"],
    "plexd collect --json": [sys.executable, "-m", "plexd", "collect", "--json"],
    "python -c pass": [sys.executable, "-c", "pass"],
}


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Print seconds from start to end of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            seconds[name].append(_seconds(command))
    rows = []
    for name, claim in CLAIMS.items():
        limit = f"at most {claim:.2f} s" if claim else ""
        rows.append([name, f"{statistics.median(seconds[name]):.3f} s", limit])
    table("From start to exit, wall time", ["", "measured", "claim"], rows)
