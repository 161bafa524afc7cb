"""Record what this version writes and answers: ``PYTHONPATH=tests python -m releases``.

It replaces the folder of the package's version in ``tests/golden/releases/``, unless that version
has its tag: the folders of releases stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from plexd import __version__
from releases.recorder import record
from releases.recordings import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence


def _record(release: Path) -> Sequence[Path]:
    """Return the files of the release, made again."""
    release.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        for name in ("live", "again"):
            (Path(work) / name).mkdir()
        asyncio.run(record(release, Path(work)))
    return sorted(release.iterdir())


def _is_released(version: str) -> bool:
    listing = subprocess.run(
        ["git", "tag", "--list", f"v{version}"], check=True, capture_output=True
    )
    return bool(listing.stdout.strip())


if __name__ == "__main__":
    if _is_released(__version__):
        sys.exit(f"{__version__} is released: set the next version in src/plexd/__init__.py first")
    logging.disable()  # what goes wrong is meant to
    for path in _record(FOLDER / __version__):
        sys.stdout.write(f"{path.stat().st_size:8,} {path.relative_to(Path.cwd())}\n")
