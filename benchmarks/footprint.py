"""Claim: an agent at rest is resident in at most 40 MB, and a cycle costs little CPU.

A real agent (``plexd run``, system and agent collectors) reports to a real server, both as
separate processes, at the shortest intervals allowed. "At rest" is after its first reports.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import table
from benchmarks.processes import Agent, Server

CYCLES = 6
INTERVAL = 5
MB = 2**20


def _status(pid: int) -> dict[str, int]:
    """The sizes of ``/proc/[pid]/status`` in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmRSS", "RssAnon", "VmHWM")))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _idle_interpreter() -> int:
    """The memory of a bare interpreter, for comparison."""
    with Agent([sys.executable, "-c", "print(flush=True); input()"], {}) as process:
        process.read_line()
        return _status(process.pid)["VmRSS"]


def main() -> None:
    """Print sizes in MB of 2^20 bytes and CPU in milliseconds."""
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Agent.reporting_to(server, interval=INTERVAL) as agent,
    ):
        server.wait_for_points(groups={"system", "agent"})
        before = _cpu_seconds(agent.pid)
        time.sleep(CYCLES * INTERVAL)
        cpu = _cpu_seconds(agent.pid) - before
        sizes = _status(agent.pid)
    rows = [
        ["resident", f"{sizes['VmRSS'] / MB:.1f} MB", "at most 40 MB"],
        ["  of it anonymous", f"{sizes['RssAnon'] / MB:.1f} MB", ""],
        ["a bare interpreter", f"{_idle_interpreter() / MB:.1f} MB", ""],
        ["CPU a cycle, reports included", f"{cpu / CYCLES * 1000:.1f} ms", ""],
    ]
    table("An agent at rest (system and agent collectors)", ["", "measured", "claim"], rows)
