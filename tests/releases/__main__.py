"""Record what this version writes and answers: ``PYTHONPATH=tests python -m releases``.

It replaces the folder of the package's version in ``tests/golden/releases/``; those of other
versions stay as they were released.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from plexd import __version__
from releases.recorder import record
from releases.recordings import FOLDER

if __name__ == "__main__":
    logging.disable()  # what goes wrong is meant to
    release = FOLDER / __version__
    release.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        for name in ("live", "again"):
            (Path(work) / name).mkdir()
        asyncio.run(record(release, Path(work)))
    for path in sorted(release.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:8,} {path}\n")
