"""Run every benchmark, or those named on the command line.

``history`` (twenty minutes) and ``stores`` (an hour) only so.
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
)


def main() -> None:
    """Print one table after the other."""
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
        print()


main()
