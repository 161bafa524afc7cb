"""Claim: keeping a cycle on the disk costs at most 3 ms of CPU, and a day's backlog no memory.

A cycle is that of a node with 100 peers: 202 points, appended, and on the disk when the call
returns. The backlog is a day of a node with 50 peers, 102 points every fifteen seconds. It is
appended and then read batch by batch, each digest checked, as after an outage. Each half runs in
its own process, so that resident memory is its own. ``TMPDIR`` chooses the disk.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import workload
from benchmarks.measure import table
from plexd.api import AgentStats, LatencyResult, MetricBatch, MetricPoint
from plexd.metrics.testing import system_point
from plexd.spool import DiskSpool, MemorySpool

if TYPE_CHECKING:
    from plexd.spool import Spool

CYCLES = 200
DAY_CYCLES = 24 * 60 * 4
BATCH = 100
CLAIM_MS = 3.0
MB = 2**20


def cycle_points(peers: int) -> list[MetricPoint]:
    """Make the points of one cycle of a node with ``peers`` peers."""
    ids = workload.peer_ids(peers)
    now = workload.NOW
    points = [
        MetricPoint(timestamp=now, group="tunnel", peer_id=stats.peer_id, data=stats)
        for stats in workload.tunnels(ids)
    ]
    points += [
        MetricPoint(timestamp=now, group="latency", peer_id=peer, data=LatencyResult(peer, rtt))
        for peer, rtt in workload.round_trips(ids).items()
    ]
    points += [
        system_point(now),
        MetricPoint(
            timestamp=now,
            group="agent",
            data=AgentStats(
                goroutine_count=42,
                heap_alloc_bytes=8388608,
                heap_sys_bytes=16777216,
                gc_pause_total_ns=1500000,
                gc_num_gc=12,
                uptime_seconds=3600.5,
                reconnect_count=3,
            ),
        ),
    ]
    return points


async def _seconds(spool: Spool, step: str, points: list[MetricPoint]) -> tuple[float, float]:
    """Measure the median CPU and wall seconds of one ``step`` of a cycle."""
    taken = []
    for _ in range(CYCLES):
        began, started = time.process_time(), time.perf_counter()
        await spool.append(points)
        if step == "append":
            taken.append((time.process_time() - began, time.perf_counter() - started))
            began, started = time.process_time(), time.perf_counter()
        while (batch := await spool.head(BATCH)) is not None:
            assert batch.name is not None
            await spool.acknowledge(batch.name)
        if step == "deliver":
            taken.append((time.process_time() - began, time.perf_counter() - started))
    cpu, wall = zip(*taken, strict=True)
    return statistics.median(cpu), statistics.median(wall)


async def _cycles() -> list[list[str]]:
    points = cycle_points(100)
    rows = []
    body = len(MetricBatch(points).to_json())
    for step, name in (
        ("append", "append (one commit)"),
        ("deliver", "take out and acknowledge three batches"),
    ):
        with tempfile.TemporaryDirectory() as made:
            async with DiskSpool(Path(made) / "spool") as disk:
                cpu, wall = await _seconds(disk, step, points)
        async with MemorySpool() as memory:
            other, _ = await _seconds(memory, step, points)
        claim = f"at most {CLAIM_MS:.1f} ms" if step == "append" else ""
        rows.append(
            [name, f"{cpu * 1e3:.2f} ms", f"{wall * 1e3:.1f} ms", f"{other * 1e3:.2f} ms", claim]
        )
    rows.append([f"  {len(points)} points, {body:,} bytes of JSON", "", "", "", ""])
    return rows


def _resident() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


async def _fill(directory: Path) -> None:
    points = cycle_points(50)
    before, cpu = _resident(), time.process_time()
    async with DiskSpool(directory) as spool:
        for _ in range(DAY_CYCLES):
            await spool.append(points)
        done = spool.statistics()
    cpu = time.process_time() - cpu
    size = (directory / "spool.db").stat().st_size
    print(
        f"  filled: {done.appended:,} points, {size / MB:.0f} MB, "
        f"{cpu / DAY_CYCLES * 1e3:.2f} ms of CPU a cycle, "
        f"resident {before / MB:.1f} -> {_resident() / MB:.1f} MB"
    )


async def _drain(directory: Path) -> None:
    before, began, cpu = _resident(), time.perf_counter(), time.process_time()
    count = most = 0
    async with DiskSpool(directory) as spool:
        opened = time.perf_counter() - began
        while (batch := await spool.head(BATCH)) is not None:
            assert batch.name is not None
            batch.to_json()
            await spool.acknowledge(batch.name)
            count += len(batch)
            most = max(most, _resident())
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = (directory / "spool.db").stat().st_size
    print(
        f"  drained: {count:,} points, {count / wall:,.0f} a second, {cpu / count * 1e6:.1f} us of "
        f"CPU each, opened in {opened * 1e3:.0f} ms, resident {before / MB:.1f} -> at most "
        f"{most / MB:.1f} MB, file {size / MB:.1f} MB afterwards"
    )


def main() -> None:
    """Print the milliseconds of a cycle, and the cost of a day's backlog."""
    title = "A cycle of 100 peers in the spool"
    table(title, ["", "CPU", "wall", "in memory", "claim"], asyncio.run(_cycles()))
    print("A day's backlog of 50 peers")
    with tempfile.TemporaryDirectory() as made:
        for step in ("fill", "drain"):
            command = [sys.executable, "-m", "benchmarks.spool", step, str(Path(made) / "spool")]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    asyncio.run({"fill": _fill, "drain": _drain}[sys.argv[1]](Path(sys.argv[2])))
