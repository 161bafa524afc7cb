"""Programs in a mount namespace of their own: whatever they mount is gone with them.

Loop devices go with their mounts, so that nothing is left on the machine however a run ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["do", "needs", "python_path", "run_apart"]

_TESTS = Path(__file__).resolve().parent.parent


def needs(*programs: str) -> Sequence[pytest.MarkDecorator]:
    """Marks of a test that needs root and Debian's ``programs``; in CI it fails without them."""
    lacking = [name for name in programs if shutil.which(name) is None]
    why = "needs root" if os.geteuid() != 0 else f"not installed: {', '.join(lacking)}"
    missing = os.geteuid() != 0 or bool(lacking)
    return [
        pytest.mark.root,
        pytest.mark.skipif(missing and "CI" not in os.environ, reason=why),
    ]


def run_apart(
    module: str, orders: msgspec.Struct, *, seconds: float, network: bool = False
) -> bytes:
    """Run ``python -m module ORDERS`` as root of its own mounts; what it printed.

    With a ``network`` of its own as well, in which loopback is down.
    """
    unshare = shutil.which("unshare")
    assert unshare is not None, "not installed: unshare"
    alone = [unshare, "--mount", "--propagation", "private", "--fork", "--kill-child"]
    alone += ["--net"] if network else []
    argument = msgspec.json.encode(orders).decode()
    done = subprocess.run(
        [*alone, sys.executable, "-m", module, argument],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def python_path() -> str:
    """For programs of the bench: the folder of tests, before what is set already."""
    return os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH")]))


def do(*command: str) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
