"""Claims: a cycle with 100 peers costs 6 ms of CPU and 45 MB at most, a peer always the same.

A cycle is what the agent does every fifteen seconds: machine, tunnels of a real wireguard-go, an
echo to every peer, the agent itself, checked, encoded and compressed. Peers answer from loopback
addresses. Beside it is the CPU of prometheus-node-exporter, without tunnels and pings, for one
scrape in the same run. Memory is that of ``plexd run`` after half a minute of reporting to a
real server.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

from isal import isal_zlib

from benchmarks.daemon import public_key, what_is_missing, wireguard_go
from benchmarks.measure import table
from benchmarks.processes import Agent, Server
from plexd import metrics
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.tunnels import Tunnels
from plexd.api import MetricBatch, Peer
from plexd.clock import SystemClock
from plexd.metrics.collection import Collection
from plexd.procfs import LinuxSystemReader

SIZES = (10, 100, 1_000, 10_000)
CLAIM_SIZE = 100
CYCLES = 21
SCRAPES = 200
BATCH = 100
CLAIM_MS = 6.0
CLAIM_MB = 45
MB = 2**20
_PORT = 19_100
_WARM_UP_SECONDS = 30


def _peers(count: int) -> tuple[Peer, ...]:
    return tuple(
        Peer(f"peer-{i}", public_key(i), f"127.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}")
        for i in range(1, count + 1)
    )


async def _cycle(collectors: list[metrics.Collector]) -> int:
    """One cycle of every collector side by side, through to the bodies of its reports."""
    clock = SystemClock()
    collections = [Collection(collector, clock) for collector in collectors]
    await asyncio.gather(*(collection.run(60) for collection in collections))
    points = []
    for collection in collections:
        kept, _ = await collection.points()
        points += kept
    for start in range(0, len(points), BATCH):
        isal_zlib.compress(MetricBatch(points[start : start + BATCH]).to_json(), 1, wbits=31)
    return len(points)


async def _seconds(interface: str, peers: tuple[Peer, ...]) -> float:
    settings = Settings(
        peers=peers,
        wireguard=WireGuardSettings(interface=interface, stale_after=timedelta(seconds=180)),
    )
    tunnels = Tunnels(settings, ())
    collectors: list[metrics.Collector] = [
        metrics.SystemCollector(LinuxSystemReader()),
        metrics.AgentStatsCollector(SystemClock().now()),
        *tunnels.collectors().values(),
    ]
    measured = []
    async with tunnels.pinger:
        for _ in range(CYCLES):
            began = time.process_time()
            count = await _cycle(collectors)
            measured.append(time.process_time() - began)
            if count != 2 + 2 * len(peers):
                raise SystemExit(f"{count} points of {len(peers)} peers")
    return statistics.median(measured)


def _resident_bytes(interface: str, peers: tuple[Peer, ...]) -> int:
    """The memory of a whole agent with this mesh."""
    with (
        tempfile.TemporaryDirectory() as name,
        Server(Path(name)) as server,
        Agent.reporting_to(server, interval=5, interface=interface, peers=peers) as agent,
    ):
        server.wait_for_points({"system", "agent", "tunnel", "latency"})
        time.sleep(_WARM_UP_SECONDS)
        pages = Path(f"/proc/{agent.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _scrape_seconds() -> float | None:
    """CPU of prometheus-node-exporter for one scrape; None where it is not installed."""
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        return None
    command = [program, f"--web.listen-address=127.0.0.1:{_PORT}", "--log.level=error"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as exporter:
        try:
            _scrape()  # the first one pays for the start
            before = _cpu_seconds(exporter.pid)
            for _ in range(SCRAPES):
                _scrape()
            return (_cpu_seconds(exporter.pid) - before) / SCRAPES
        finally:
            exporter.terminate()


def _scrape() -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/metrics", timeout=10) as answer:
                answer.read()
        except OSError:  # not listening yet
            time.sleep(0.05)
        else:
            return
    raise SystemExit("prometheus-node-exporter does not answer")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print CPU milliseconds of a cycle by the number of peers, beside one scrape."""
    if needs := what_is_missing():
        print(f"A full cycle: {needs}")
        return
    rows, resident = [], 0
    for size in SIZES:
        peers = _peers(size)
        with wireguard_go(peers) as interface:
            seconds = asyncio.run(_seconds(interface, peers))
            if size == CLAIM_SIZE:
                resident = _resident_bytes(interface, peers)
        claim = f"at most {CLAIM_MS:.1f} ms" if size == CLAIM_SIZE else ""
        per_peer = f"{seconds / size * 1e6:.1f} us"
        rows.append([f"{size:,} peers", f"{seconds * 1e3:.2f} ms", per_peer, claim])
    scrape = _scrape_seconds()
    cost = "not installed" if scrape is None else f"{scrape * 1e3:.2f} ms"
    rows.append(["prometheus-node-exporter, a scrape", cost, "", ""])
    table("CPU of a full cycle", ["", "measured", "a peer", "claim"], rows)
    memory = f"{resident / MB:.1f} MB, at most {CLAIM_MB} MB"
    print(f"  `plexd run` with {CLAIM_SIZE} peers is resident in {memory}")
