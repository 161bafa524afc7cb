"""A process ends although a thread of it is stuck in a mount point, here also in a real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HUNG = r"^/mnt/nas: statvfs has not answered for \d+\.\d s$"

EXIT = """
    import asyncio, threading
    from plexd.clock import SystemClock
    from plexd.procfs import LinuxSystemReader, ProcfsError

    class Impatient(SystemClock):
        def timeout(self, seconds):
            return asyncio.timeout(0.05)

    reader = LinuxSystemReader({path!r}, clock=Impatient(), **{options})
    for _ in range(3):
        try:
            asyncio.run(reader.read_stats())
        except ProcfsError as err:
            print(err, flush=True)
"""


def run(script: str, *prefix: str) -> list[str]:
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_hung_mount_does_not_keep_the_interpreter_from_exiting() -> None:
    options = "{'statvfs': lambda _: threading.Event().wait()}"
    lines = run(EXIT.format(path="/mnt/nas", options=options))
    assert len(lines) == 3
    assert all(re.match(HUNG, line) for line in lines)


# A file system whose server never says a word: every request to it waits for the first answer.
DEAD_FUSE = """
    import ctypes, os
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={{fuse}},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"dead", {path!r}.encode(), b"fuse", 0, options) == 0, ctypes.get_errno()
"""


def _can_mount_fuse() -> bool:
    """Whether a mount namespace of our own, and FUSE inside it, are to be had without root."""
    if not Path("/dev/fuse").exists() or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _can_mount_fuse(), reason="needs /dev/fuse and user namespaces")
def test_a_process_with_a_dead_fuse_mount_ends(tmp_path: Path) -> None:
    script = (DEAD_FUSE + EXIT).format(path=str(tmp_path), options="{}")
    lines = run(script, "unshare", "--user", "--map-root-user", "--mount")
    assert len(lines) == 3
    assert all("statvfs has not answered for" in line for line in lines)
