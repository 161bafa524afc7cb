"""Claim: collecting, encoding and compressing a point costs a third of what Go takes for it.

The work is that of a node with 10,000 peers: 20,000 tunnel and latency points, in batches of the
default size. Two peers do the same work: the standard library as one would write it first
(dictionaries, `json` and `gzip`), and, where a Go compiler is at hand (Debian package golang-go),
Go's encoding/json and compress/gzip, in ``benchmarks/go``. The aim is 1.0 us of CPU on a machine
where Go needs 3.0, and at most a quarter of the standard library's.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from benchmarks import workload
from benchmarks.measure import interleaved, table
from plexd.api import MetricBatch, check_points
from plexd.metrics import LatencyCollector, TunnelCollector
from plexd.metrics.testing import ManualPeers, ScriptedTunnelReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.api import MetricPoint, TunnelStats

PEERS = 10_000
POINTS = 2 * PEERS
BATCH = 100
CHUNK = 1000


class InstantPinger:
    """Answers from a table: the network's share of a sweep is another benchmark's."""

    def __init__(self, rtts: dict[str, int]) -> None:
        self._rtts = rtts

    async def ping(self, peer_id: str) -> int:
        """The table's entry, or an exception for a peer that does not answer."""
        if (rtt := self._rtts[peer_id]) < 0:
            raise TimeoutError
        return rtt


class Plexd:
    """What the agent does, part by part."""

    def __init__(self, peers: list[str], stats: list[TunnelStats], rtts: dict[str, int]) -> None:
        self._tunnels = TunnelCollector(ScriptedTunnelReader(stats))
        self._latency = LatencyCollector(InstantPinger(rtts), ManualPeers(*peers))
        self.points: list[MetricPoint] = []
        self.bodies: list[bytes] = []

    async def _collect(self) -> None:
        self.points = []
        for collector in (self._tunnels, self._latency):
            self.points += [point async for point in collector.collect()]

    def collect(self) -> None:
        """Collect through the collectors, in an event loop of its own."""
        asyncio.run(self._collect())

    def check(self) -> None:
        """Check each point as the manager does: could a receiver read it?"""
        for start in range(0, len(self.points), CHUNK):
            check_points(self.points[start : start + CHUNK])

    def encode(self) -> None:
        """Encode the points into the bodies of reports."""
        starts = range(0, len(self.points), BATCH)
        self.bodies = [MetricBatch(self.points[i : i + BATCH]).to_json() for i in starts]

    def compress(self) -> list[bytes]:
        """Compress the bodies as the client does."""
        return [isal_zlib.compress(body, 1, wbits=31) for body in self.bodies]

    def everything(self) -> None:
        """One cycle."""
        self.collect()
        self.encode()
        self.compress()


class Plain:
    """The same work with the standard library."""

    def __init__(self, peers: list[str], stats: list[TunnelStats], rtts: dict[str, int]) -> None:
        self._peers, self._stats, self._rtts = peers, stats, rtts
        self._level = 9  # the default of gzip.compress

    def at_level(self, level: int) -> Plain:
        """The same at another level than the default."""
        self._level = level
        return self

    def _points(self) -> Iterator[dict[str, Any]]:
        stamp = workload.NOW.isoformat().replace("+00:00", "Z")
        for s in self._stats:
            data = {
                "peer_id": s.peer_id,
                "last_handshake_time": s.last_handshake_time.isoformat().replace("+00:00", "Z"),
                "rx_bytes": s.rx_bytes,
                "tx_bytes": s.tx_bytes,
                "handshake_succeeded": s.handshake_succeeded,
                "handshake_stale": s.handshake_stale,
                "packet_loss_percent": s.packet_loss_percent,
            }
            yield {"timestamp": stamp, "group": "tunnel", "peer_id": s.peer_id, "data": data}
        for peer in self._peers:
            data = {"peer_id": peer, "rtt_nano": self._rtts[peer]}
            yield {"timestamp": stamp, "group": "latency", "peer_id": peer, "data": data}

    def everything(self) -> None:
        """One cycle."""
        points = list(self._points())
        for start in range(0, len(points), BATCH):
            gzip.compress(json.dumps(points[start : start + BATCH]).encode(), self._level)


def main() -> None:
    """Print microseconds of CPU a point."""
    # Peers that do not answer are part of the work; their warnings need not be printed.
    logging.getLogger("plexd").addHandler(logging.NullHandler())
    work = workload.peer_ids(PEERS)
    given = (work, workload.tunnels(work), workload.round_trips(work))
    plexd, plain, fast = Plexd(*given), Plain(*given), Plain(*given).at_level(1)
    contenders = {
        "plexd: collect": plexd.collect,
        "plexd: encode": plexd.encode,
        "plexd: compress": plexd.compress,
        "plexd: all three": plexd.everything,
        "plexd: check, as the manager does": plexd.check,
        "json + gzip": plain.everything,
        "json + gzip at level 1": fast.everything,
    }
    medians = interleaved(contenders, rounds=15)
    ours = medians["plexd: all three"]
    rows = [
        [name, f"{seconds / POINTS * 1e6:.2f}", f"{seconds / ours:.1f} x"]
        for name, seconds in medians.items()
    ]
    table(f"CPU of {POINTS:,} points in batches of {BATCH}", ["", "us a point", "ratio"], rows)
    print(f"  json + gzip / plexd: {medians['json + gzip'] / ours:.1f} (claim: at least 4.0)")
    if (go := _go_microseconds()) is None:
        print("  Go: no compiler here (apt-get install golang-go)")
    else:
        ratio = go / (ours / POINTS * 1e6)
        print(f"  Go: {go:.2f} us a point; Go / plexd: {ratio:.1f} (claim: at least 3.0)")


def _go_microseconds() -> float | None:
    compiler = shutil.which("go")
    if compiler is None:
        return None
    done = subprocess.run(
        [compiler, "run", "."],
        cwd=Path(__file__).parent / "go",
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
