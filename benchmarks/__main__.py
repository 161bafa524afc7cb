"""Run every benchmark, or those named on the command line.

``history`` (twenty minutes) and ``stores`` (an hour) run only if they are named.
"""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "pipeline",
    "compression",
    "footprint",
    "start",
    "sweep",
    "tunnels",
    "cycle",
    "spool",
    "ingest",
    "mesh",
    "storm",
    "slow",
    "callbacks",
)


def main() -> None:
    """Run the benchmarks one after the other."""
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
        print()


main()
