"""Claims: an agent at rest is resident in 34 MB, with 100 peers at 0.8 x node_exporter's CPU.

Real agents (``plexd run``), first with the collectors for the machine and itself, then with a mesh
of 100 peers as well, report to a real server. prometheus-node-exporter, which knows neither
tunnels nor pings, is scraped once in each of their cycles. "At rest" is after the first reports.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.daemon import loopback_peers, what_is_missing, wireguard_go
from benchmarks.measure import table
from benchmarks.processes import (
    EXPORTER,
    Agent,
    Exporter,
    Server,
    compile_sources,
    cpu_seconds,
    memory,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import Peer

CYCLES = 12
INTERVAL = 5
PEERS = 100
MB = 2**20


def _idle_interpreter() -> list[str]:
    """The memory of a bare interpreter, for comparison."""
    with Agent([sys.executable, "-c", "print(flush=True); input()"], {}) as process:
        process.read_line()
        return _row("a bare interpreter", process.pid, None)


def _row(name: str, pid: int, seconds: float | None) -> list[str]:
    sizes = memory(pid)
    resident, anonymous = (f"{sizes[size] / MB:.1f} MB" for size in ("VmRSS", "RssAnon"))
    return [name, resident, anonymous, "" if seconds is None else f"{seconds * 1e3:.1f} ms"]


def _side_by_side(peers: Sequence[Peer]) -> list[list[str]]:
    """An agent with ``peers`` and an exporter, in the same minute."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        interface = stack.enter_context(wireguard_go(peers)) if peers else ""
        server = stack.enter_context(Server(directory))
        agent = stack.enter_context(
            Agent.reporting_to(server, interval=INTERVAL, interface=interface, peers=peers)
        )
        mesh = {"tunnel", "latency"} if peers else set()
        server.wait_for_points(groups={"system", "agent"} | mesh)
        measured = [(f"plexd, {len(peers)} peers", agent.pid)]
        exporter = stack.enter_context(Exporter()) if Exporter.is_installed() else None
        if exporter is not None:
            exporter.scrape()  # the first one pays for the start
            measured.append((EXPORTER, exporter.pid))
        before = [cpu_seconds(pid) for _, pid in measured]
        for _ in range(CYCLES):
            time.sleep(INTERVAL)
            if exporter is not None:
                exporter.scrape()
        used = [cpu_seconds(pid) - began for (_, pid), began in zip(measured, before, strict=True)]
        return [
            _row(name, pid, seconds / CYCLES)
            for (name, pid), seconds in zip(measured, used, strict=True)
        ]


def main() -> None:
    """Print sizes in MB of 2^20 bytes and CPU in milliseconds."""
    compile_sources()
    rows = [_idle_interpreter(), *_side_by_side(())]
    if needs := what_is_missing():
        print(f"with a mesh: {needs}")
    else:
        rows += _side_by_side(loopback_peers(PEERS))
    rows.append(["claim", "34 MB", "", f"0.8 x {EXPORTER}"])
    table("An agent at rest", ["", "resident", "of it anonymous", "CPU a cycle"], rows)
