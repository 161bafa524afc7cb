"""Record this machine's ``/proc`` as a golden tree: ``python tests/golden/record_proc.py NAME``.

It takes two samples of ``/proc/stat`` 100 ms apart, as the reader does. It does not write
``expected.json``: those values are calculated by hand, or they would only repeat the reader's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

PROC = Path("/proc")


def record(tree: Path) -> None:
    (tree / "net").mkdir(parents=True, exist_ok=True)
    for name in ("meminfo", "loadavg", "net/dev", "stat"):
        (tree / name).write_bytes((PROC / name).read_bytes())
    time.sleep(0.1)
    (tree / "stat.later").write_bytes((PROC / "stat").read_bytes())


if __name__ == "__main__":
    record(Path(__file__).parent / "proc" / sys.argv[1])
