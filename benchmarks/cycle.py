"""Claims: a cycle with 100 peers costs 6 ms of CPU at most, a peer always the same.

A cycle is what the agent does every fifteen seconds: machine, tunnels of a real wireguard-go, an
echo to every peer, the agent itself, checked, encoded and compressed. Peers answer from loopback
addresses. Beside it is the CPU of prometheus-node-exporter, without tunnels and pings, for one
scrape in the same run. Both go round and round, so all they need is in the caches of the processor;
`footprint` has what they cost at their usual pace.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import timedelta

from isal import isal_zlib

from benchmarks.daemon import loopback_peers, what_is_missing, wireguard_go
from benchmarks.measure import table
from benchmarks.processes import EXPORTER, Exporter, cpu_seconds
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


def _scrape_seconds() -> float | None:
    """CPU of the node exporter for one scrape; None where it is not installed."""
    if not Exporter.is_installed():
        return None
    with Exporter() as exporter:
        exporter.scrape()  # the first one pays for the start
        before = cpu_seconds(exporter.pid)
        for _ in range(SCRAPES):
            exporter.scrape()
        return (cpu_seconds(exporter.pid) - before) / SCRAPES


def main() -> None:
    """Print CPU milliseconds of a cycle by the number of peers, beside one scrape."""
    if needs := what_is_missing():
        print(f"A full cycle: {needs}")
        return
    rows = []
    for size in SIZES:
        peers = loopback_peers(size)
        with wireguard_go(peers) as interface:
            seconds = asyncio.run(_seconds(interface, peers))
        claim = f"at most {CLAIM_MS:.1f} ms" if size == CLAIM_SIZE else ""
        per_peer = f"{seconds / size * 1e6:.1f} us"
        rows.append([f"{size:,} peers", f"{seconds * 1e3:.2f} ms", per_peer, claim])
    scrape = _scrape_seconds()
    cost = "not installed" if scrape is None else f"{scrape * 1e3:.2f} ms"
    rows.append([f"{EXPORTER}, a scrape", cost, "", ""])
    table("CPU of a full cycle", ["", "measured", "a peer", "claim"], rows)
