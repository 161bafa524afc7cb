"""Claim: a year of a mesh answers as fast as its first minute.

``python -m benchmarks history`` writes 100 million points of 200 simulated nodes with 50 peers each
with the store's own code (some twenty minutes), starts a server on them, and asks as the pages do.
Then it writes a year of hours of as many links into an empty store, and asks for the year of one.
``PLEXD_BENCH_POINTS`` sets another number, ``PLEXD_BENCH_DIR`` keeps the store for another run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.measure import table
from benchmarks.processes import family
from plexd.api import BatchName
from plexd.clock import SystemClock
from plexd_server.fault_log import FaultLog
from plexd_server.registry import Registry
from plexd_server.simulate import World
from plexd_server.simulate.readings import read_node
from plexd_server.store import Report, SeriesQuery
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.duckdb.rollups import HOUR
from plexd_server.store.duckdb.series import read_series
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.embedded.mark_cache import KnownMarks, MarkCache
from plexd_server.store.embedded.staging import StagedReports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd_server.store.marks import Mark

NODES, PEERS, EVERY_SECONDS = 200, 50, 15
POINTS = int(os.environ.get("PLEXD_BENCH_POINTS", "100_000_000"))
QUESTIONS = 20
_MONTHS: Final = 12
_YEAR: Final = _MONTHS * timedelta(days=30)
NODE: Final = "/v1/nodes/sim-7"
_LINK = f"{NODE}/series?peer_id=sim-8&since="
ASKED: Final = {
    "node: newest readings": f"{NODE}/latest",
    "node: peers": f"{NODE}/peers",
    "node: ledger": f"{NODE}/ledger",
    **{
        f"node: charts of {span}": f"{NODE}/series?since={span}&field=cpu_usage_percent"
        "&field=memory_used_bytes&field=network_rx_bytes&field=load_avg_1"
        for span in ("15m", "6h", "24h", "7d")
    },
    **{
        f"link: {group} of {span}": f"{_LINK}{span}&group={group}&field={field}"
        for span in ("15m", "24h", "1y")
        for group, field in (("latency", "rtt_nano"), ("tunnel", "rx_bytes"))
    },
    "nodes by name": "/v1/nodes",
    "fleet": "/v1/fleet",
    "mesh": "/v1/mesh",
}


def main() -> None:
    """Write the points unless they are there, then print both tables."""
    kept = os.environ.get("PLEXD_BENCH_DIR")
    with TemporaryDirectory() as directory:
        data = Path(kept or directory) / "data"
        if not data.exists():
            write_points(data)
        size = (data / "points.duckdb").stat().st_size
        with serving(data) as (url, pid):
            rows = [[name, *timed(f"{url}{path}")] for name, path in ASKED.items()]
            resident = memory_mib(pid)
    table(
        f"{POINTS:,} points: wall time of an answer, {QUESTIONS} questions each",
        ["", "median ms", "p95 ms"],
        rows,
    )
    facts = [["bytes a point", f"{size / POINTS:.1f}"], ["memory, MiB", f"{resident:.0f}"]]
    table("the store", ["", ""], facts)
    with TemporaryDirectory() as directory:
        rows = [["link: latency of 1y, of a real one", *year_of_a_link(Path(directory))]]
    table("a year of hours of each link, without HTTP", ["", "median ms", "p95 ms"], rows)


def write_points(data: Path) -> None:
    """Write collections of all nodes up to now, batch by batch, as the store's own loader does."""
    data.mkdir(mode=0o700, parents=True)
    registry = Registry(data, clock=SystemClock())
    names = [f"sim-{number}" for number in range(NODES)]
    for name in names:
        registry.create_node(name)
    registry.close()
    log = FaultLog("benchmark", SystemClock())
    tables = Tables(data / "points.duckdb", "256MB", reading=log)
    marks = MarkCache(KnownMarks(), _NothingStored())
    places = Counter[str]()
    world = World(NODES, PEERS)
    left, record, start = POINTS, 0, datetime.now(UTC)
    start -= timedelta(seconds=POINTS / (NODES * (2 + 2 * PEERS)) * EVERY_SECONDS)
    while left > 0:
        staged, chunk = StagedReports(marks), Chunk(record)
        record += 1
        for number, name in enumerate(names):
            at = float((record - 1) * EVERY_SECONDS)
            points = read_node(world, number, names, start, at)[:left]
            left -= len(points)
            if points:
                batch = BatchName(f"{number:032x}", places[name] + 1, len(points))
                places[name] += len(points)
                report = Report(name, points, start + timedelta(seconds=at), name=batch)
                chunk.add(record, staged.add(report)[1])
        tables.load(chunk)
        staged.apply(record)
    roll_up(tables)
    tables.compact(start)
    tables.close()


def roll_up(tables: Tables) -> None:
    """Make all rollups, and print what that costs."""
    began, longest, has_more = time.process_time(), 0.0, True
    while has_more:
        piece = time.perf_counter()
        has_more = tables.roll()
        longest = max(longest, time.perf_counter() - piece)
    cpu = time.process_time() - began
    rows = [["CPU, µs a point", f"{1e6 * cpu / POINTS:.2f}"]]
    rows += [["longest wait of what is loaded, ms", f"{1000 * longest:.0f}"]]
    table("rollups of all of them, made afterwards", ["", ""], rows)


def year_of_a_link(data: Path) -> list[str]:
    """Return the median and p95 in milliseconds of a link's year among those of all links."""
    log = FaultLog("benchmark", SystemClock())
    with closing(Tables(data / "points.duckdb", "256MB", reading=log)) as tables:
        until = write_year(tables)
        fields = ("latency", ("rtt_nano",), frozenset[str]())
        took = []
        for number in range(QUESTIONS):
            node, peer = number * 7 % NODES, number % PEERS
            range_ = (until - _YEAR, until, timedelta(hours=36))
            query = SeriesQuery(f"sim-{node}", *fields, *range_, f"sim-{peer}")
            began = time.perf_counter()
            found = tables.read(partial(read_series, query=query))
            took.append(1000 * (time.perf_counter() - began))
            assert len(found.times) >= _YEAR // timedelta(hours=36)
    return summary(took)


def write_year(tables: Tables) -> datetime:
    """Write hours of latency of all links as they lie in the end; return when they end."""
    month, hours = 30 * 24 * HOUR.length, 30 * 24
    first = int(datetime.now(UTC).timestamp() * 1e6) // month * month - _MONTHS * month
    write = tables.connection.execute
    write(
        "INSERT INTO series SELECT n * $peers + p + 1, 'sim-' || n, 'sim-' || p "
        "FROM range($nodes) a(n), range($peers) b(p)",
        {"nodes": NODES, "peers": PEERS},
    )
    for number in range(_MONTHS):
        write(
            """INSERT INTO rollups_1h_latency SELECT series, make_timestamp(start), 240,
                make_timestamp(start + offset_), make_timestamp(start + offset_ + 3585000000), 0, 0,
                15000000 + (random() * 100000)::BIGINT,
                make_timestamp(start + (random() * 3500)::BIGINT * 1000000),
                3.6e9 + random() * 1e6, 238,
                14e6 + floor(random() * 1e6), 18e6 + floor(random() * 1e6)
            FROM (SELECT series, $first + h * $hour AS start, series % 15 * 1000000 AS offset_
                FROM series, range($hours) a(h)) ORDER BY series, start""",
            {"first": first + number * month, "hour": HOUR.length, "hours": hours},
        )
    end = first + _MONTHS * month
    write("UPDATE meta SET value = $end WHERE key = 'rolled'", {"end": str(end)})
    tables.checkpoint()
    return datetime.fromtimestamp(end / 1e6, UTC)


class _NothingStored:
    """No marks beside those in memory."""

    def find(self, node_id: str, epoch: str) -> None:
        del node_id, epoch

    def of_node(self, node_id: str) -> list[Mark]:
        del node_id
        return []


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, int]]:
    """Yield the address of a server on ``data`` that knows its mesh, and its process id."""
    token = data.parent / "token"
    token.write_text("bench-operator-token", "ascii")
    token.chmod(0o600)
    command = [sys.executable, "-m", "plexd_server", "serve", "--listen", "127.0.0.1:0"]
    command += ["--data-dir", str(data), "--operator-token-file", str(token)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        began = time.perf_counter()
        url = server.stdout.readline().removeprefix("listening on ").strip()
        sys.stderr.write(f"open after {time.perf_counter() - began:.1f} s\n")
        while ask(f"{url}/v1/mesh").count(b'"state"') < NODES * PEERS // 2:
            time.sleep(0.1)
        sys.stderr.write(f"mesh known after {time.perf_counter() - began:.1f} s\n")
        try:
            yield url, server.pid
        finally:
            server.terminate()


def ask(url: str) -> bytes:
    """Return an answer to the operator."""
    headers = {"Authorization": "Bearer bench-operator-token"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 -- our own
    with urllib.request.urlopen(request, timeout=120) as got:  # noqa: S310
        body: bytes = got.read()
        return body


def timed(url: str) -> list[str]:
    """Return the median and p95 of its answers in milliseconds."""
    took = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        ask(url)
        took.append(1000 * (time.perf_counter() - began))
    return summary(took)


def summary(took: Sequence[float]) -> list[str]:
    """Return the median and the p95."""
    return [f"{statistics.median(took):.0f}", f"{statistics.quantiles(took, n=20)[-1]:.0f}"]


def memory_mib(pid: int) -> float:
    """Return the resident memory of the process, and of those that it started."""
    statuses = (Path(f"/proc/{each}/status").read_text() for each in family(pid))
    return sum(int(status.partition("VmRSS:")[2].split()[0]) for status in statuses) / 1024


if __name__ == "__main__":
    main()
