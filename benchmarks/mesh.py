"""How long the live mesh takes: over HTTP while reports arrive, and per point."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.measure import table
from plexd_server.mesh import LiveMesh
from plexd_server.simulate import World
from plexd_server.simulate.readings import read_node
from plexd_server.store import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES, PEERS = 200, 50
ROUND_SECONDS = 15
QUESTIONS = 30
LIMITS_MS = {"/v1/mesh": 300, "/v1/fleet": 150}
START = datetime(2026, 2, 12, tzinfo=UTC)


def main() -> None:
    """Print both tables."""
    title = f"{NODES} nodes with {PEERS} peers each, reports coming in: wall time of an answer"
    table(title, ["", "median", "p95", "at most"], list(_over_http()))
    table("reading reports, CPU", ["", "us a point"], list(_in_memory()))


def _over_http() -> Iterator[list[str]]:
    with TemporaryDirectory() as directory:
        token = Path(directory) / "token"
        token.write_text("bench-operator-token", "ascii")
        token.chmod(0o600)
        program = [sys.executable, "-m", "plexd_server"]
        data = ["--data-dir", str(Path(directory) / "data")]
        serve = [*program, "serve", "--listen", "127.0.0.1:0", *data]
        with subprocess.Popen(
            [*serve, "--operator-token-file", str(token)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("listening on ").strip()
            rate = NODES * (2 + 2 * PEERS) / ROUND_SECONDS
            shape = ["--nodes", str(NODES), "--peers", str(PEERS), "--rate", str(rate)]
            with subprocess.Popen(
                [*program, "simulate", "--server", url, *data, *shape], stdout=subprocess.DEVNULL
            ) as simulation:
                _ask(f"{url}/v1/mesh", until_bytes=3_000_000)
                time.sleep(2 * ROUND_SECONDS)
                for path, limit in LIMITS_MS.items():
                    taken = [1000 * _ask(url + path) for _ in range(QUESTIONS)]
                    cuts = quantiles(taken, n=20)
                    yield [path, f"{cuts[9]:.0f} ms", f"{cuts[18]:.0f} ms", f"{limit} ms"]
                simulation.terminate()
            server.terminate()


def _ask(url: str, until_bytes: int = 0) -> float:
    """Return the seconds until a whole answer of at least ``until_bytes`` is there."""
    request = urllib.request.Request(url)  # noqa: S310 -- our own server
    request.add_header("Authorization", "Bearer bench-operator-token")
    while True:
        time.sleep(1.1)  # a snapshot is used for a second
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- the same
            size = len(answer.read())
        if size >= until_bytes:
            return time.perf_counter() - began


def _in_memory() -> Iterator[list[str]]:
    world = World(NODES, PEERS)
    names = [world.name(node) for node in range(NODES)]
    live = LiveMesh(max_waiting=10_000_000)
    for step in range(3):
        for node in range(NODES):
            points = read_node(world, node, names, START, 15.0 * step)
            live.observe(Report(names[node], points, points[0].timestamp))
    points_waiting, began = live.waiting, time.process_time()
    live.drain()
    taken = time.process_time() - began
    yield ["evaluating a reading", f"{1e6 * taken / points_waiting:.2f}"]
