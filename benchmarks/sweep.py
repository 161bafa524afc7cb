"""One echo to each of 10,000 addresses of this machine, beside fping over the same list.

Claims: at most fping's wall time, a median round trip within 15 % of fping's, nothing lost. Needs
root (a raw socket) and the Debian package ``fping``; it says what is missing.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import resource
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.measure import table
from plexd.icmp import ICMPPinger, PingError, SocketError
from plexd.metrics.collectors.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

ROUNDS = 11
PEERS = [str(ipaddress.ip_address("127.1.0.1") + number) for number in range(10_000)]
FPING = "fping -q -c1 -i 0"


@dataclass(frozen=True)
class Run:
    """One sweep: its cost and its results."""

    wall_seconds: float
    cpu_seconds: float
    median_rtt_nano: float
    lost: int


def main() -> None:
    """Print the medians of interleaved rounds."""
    fping = shutil.which("fping")
    if fping is None:
        print("fping not installed: measuring without it")
    try:
        runs = asyncio.run(_rounds(fping))
    except SocketError as err:
        print(f"cannot sweep: {err}")
        return
    rows = [[name, *_cells(found, runs.get(FPING))] for name, found in runs.items()]
    head = ["", "wall", "of fping's", "CPU", "median RTT", "of fping's", "lost"]
    table(f"One echo to each of {len(PEERS):,} loopback addresses", head, rows)


async def _rounds(fping: str | None) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    async with ICMPPinger(lambda peer_id: peer_id) as pinger:
        ways = {"as the latency collector pings": _collected, "a task for each ping": _gathered}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                runs.setdefault(name, []).append(await _measured(way, pinger))
            if fping is not None:
                runs.setdefault(FPING, []).append(_fping(fping))
    return runs


async def _measured(
    way: Callable[[ICMPPinger], Coroutine[None, None, Sequence[int]]], pinger: ICMPPinger
) -> Run:
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    rtts = await way(pinger)
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    answered = [rtt for rtt in rtts if rtt > 0]
    return Run(wall, used, statistics.median(answered), len(rtts) - len(answered))


async def _collected(pinger: ICMPPinger) -> Sequence[int]:
    async with Sweep(pinger, PEERS) as sweep:
        return [await sweep.result(position) for position in range(len(PEERS))]


async def _gathered(pinger: ICMPPinger) -> Sequence[int]:
    async def ping(peer: str) -> int:
        try:
            return await pinger.ping(peer)
        except PingError:
            return -1

    return await asyncio.gather(*[ping(peer) for peer in PEERS])


def _fping(program: str) -> Run:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [program, *FPING.split()[1:]],
        input="\n".join(PEERS),
        capture_output=True,
        text=True,
        check=False,  # its status is 1 if one peer is silent
        env={**os.environ, "LC_ALL": "C"},
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # 127.1.0.1 : xmt/rcv/%loss = 1/1/0%, min/avg/max = 0.004/0.004/0.004
    averages = [line.rsplit("/", 2)[1] for line in done.stderr.splitlines() if "avg" in line]
    # It rounds to whole microseconds, so its median is interpolated.
    median = statistics.median_grouped([float(average) * 1e3 for average in averages]) * 1e3
    return Run(wall, cpu, median, len(PEERS) - len(averages))


def _cells(runs: list[Run], peers: list[Run] | None) -> list[str]:
    wall = statistics.median(run.wall_seconds for run in runs)
    rtt = statistics.median(run.median_rtt_nano for run in runs)
    cpu = statistics.median(run.cpu_seconds for run in runs)
    ratios = ["", ""]
    if peers is not None:
        ratios[0] = f"{wall / statistics.median(run.wall_seconds for run in peers):.2f}"
        ratios[1] = f"{rtt / statistics.median(run.median_rtt_nano for run in peers):.2f}"
    lost = sum(run.lost for run in runs)
    return [
        f"{wall * 1e3:.0f} ms",
        ratios[0],
        f"{cpu * 1e3:.0f} ms",
        f"{rtt / 1e3:.1f} us",
        ratios[1],
        str(lost),
    ]
