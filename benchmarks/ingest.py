"""Claims: ingest keeps up with VictoriaMetrics; recognizing duplicates costs a tenth at most.

A real ``plexd-server`` receives gzip bodies of 100 points (one of ``system`` and ``agent`` each,
the rest ``tunnel`` and ``latency``) on 16 connections of 16 nodes, from a client process that has
all bodies ready; VictoriaMetrics (Debian's package, if it is installed) receives the same points as
gzip Influx lines from the same client. Rounds with names, without, and of VictoriaMetrics
alternate; the figures are medians of the rounds. CPU is the server's, of all its processes, until
queries find the points. An answer of ``plexd-server`` means that the points are on the disk; an
answer of VictoriaMetrics means that they are in memory, to be written within five seconds.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
from isal import isal_zlib

from benchmarks.measure import table
from benchmarks.processes import Agent, family
from plexd.api import AgentStats, LatencyResult, MetricBatch, MetricPoint, TunnelStats
from plexd.clock import SystemClock
from plexd.metrics.testing import system_point
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 16
POINTS = 100
REQUESTS = 60
ROUNDS = 9
PLAIN, NAMED, VICTORIA = "without names", "with names", "victoria-metrics"
# Each connection is one node, and here without a rate limit.
_SERVE = [sys.executable, "-m", "plexd_server", "serve", "--listen", "127.0.0.1:0"]
_SERVE += ["--node-rate", "0", "--data-dir"]
_TICKS = os.sysconf("SC_CLK_TCK")


class Target(msgspec.Struct):
    """One server for the client: its port, the nodes' tokens, and the bodies to send."""

    port: int
    tokens: list[str] = []
    bodies: list[bytes] = []


class Orders(msgspec.Struct):
    """What the client process has to know."""

    plexd: Target
    victoria: Target | None


def batch() -> MetricBatch:
    """Return a report as a node with 49 peers sends it."""
    now = datetime.now(UTC)
    agent = AgentStats(42, 2**23, 2**24, 10**6, 12, 3600.5, 3)
    points = [system_point(now), MetricPoint(timestamp=now, group="agent", data=agent)]
    for number in range((POINTS - len(points)) // 2):
        peer = f"peer-{secrets.token_hex(4)}"
        tunnel = TunnelStats(
            peer_id=peer,
            last_handshake_time=now,
            rx_bytes=number << 20,
            tx_bytes=number << 19,
            handshake_succeeded=True,
            handshake_stale=False,
            packet_loss_percent=0.5,
        )
        latency = LatencyResult(peer, 15_000_000 + number)
        points += [
            MetricPoint(timestamp=now, group="tunnel", peer_id=peer, data=tunnel),
            MetricPoint(timestamp=now, group="latency", peer_id=peer, data=latency),
        ]
    return MetricBatch(points)


def compressed(body: bytes) -> bytes:
    """Return the body as a sender compresses it."""
    return isal_zlib.compress(body, 1, wbits=31)


def influx_lines(node: str, points: MetricBatch) -> bytes:
    """Return the same points in InfluxDB's line protocol, times and booleans as numbers."""
    lines: list[str] = []
    for point in points:
        peer = f",peer_id={point.peer_id}" if point.peer_id else ""
        values: dict[str, Any] = msgspec.to_builtins(point.data, builtin_types=(datetime,))
        fields = ",".join(f"{k}={_number(v)}" for k, v in values.items() if k != "peer_id")
        stamp = round(point.timestamp.timestamp() * 1e9)
        lines.append(f"{point.group},node_id={node}{peer} {fields} {stamp}")
    return "\n".join(lines).encode()


def _number(value: float | datetime) -> float:
    return value.timestamp() if isinstance(value, datetime) else float(value)


class Connection:
    """One node's connection; sends each report after the answer to the one before."""

    def __init__(self, port: int, head: str, body: bytes, accepted: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoch = secrets.token_hex(16)
        self._first = 1
        self._body = body
        self._head = (
            f"{head}Host: localhost\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
        )
        self._accepted = accepted
        self.took: list[float] = []

    def send(self, *, with_name: bool) -> None:
        """Send one report; it has to be accepted."""
        names = ""
        if with_name:
            names = f"Plexd-Batch: {self._epoch};first={self._first};points={POINTS}\r\n"
            names += "Plexd-After: none;skipped=0\r\nPlexd-Dropped: 0\r\n"
            self._first += POINTS
        request = (self._head + names + "\r\n").encode() + self._body
        began = time.perf_counter()
        self._socket.sendall(request)
        answer = self._answer()
        self.took.append(time.perf_counter() - began)
        if self._accepted not in answer:
            raise RuntimeError(answer.decode())

    def _answer(self) -> bytes:
        """Read one whole answer, which may come in several pieces."""
        answer = b""
        while True:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"cut off after {answer!r}")
            answer += piece
            head, end, body = answer.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split()
            if end and len(body) >= (int(length[0]) if length else 0):
                return answer

    def send_many(self, *, with_name: bool) -> None:
        """Send one round of reports."""
        self.took.clear()
        for _ in range(REQUESTS):
            self.send(with_name=with_name)


def connect_plexd(target: Target) -> list[Connection]:
    """Return a connection for each node."""
    return [
        Connection(
            target.port,
            f"POST /v1/nodes/{token.partition(' ')[0]}/metrics HTTP/1.1\r\n"
            f"Authorization: Bearer {token.partition(' ')[2]}\r\n"
            "Content-Type: application/json\r\n",
            body,
            b'"duplicate":false',
        )
        for token, body in zip(target.tokens, target.bodies, strict=True)
    ]


def connect_victoria(target: Target) -> list[Connection]:
    """Return as many connections to VictoriaMetrics."""
    head = "POST /influx/write HTTP/1.1\r\n"
    return [Connection(target.port, head, body, b" 204 ") for body in target.bodies]


def run_client(orders: Orders) -> None:
    """Run a round for every line of standard input; print its seconds, and each request's."""
    plexd = connect_plexd(orders.plexd)
    victoria = connect_victoria(orders.victoria) if orders.victoria else []
    for line in sys.stdin:
        kind = line.strip()
        connections = victoria if kind == VICTORIA else plexd
        with_name = {"with_name": kind == NAMED}
        threads = [threading.Thread(target=c.send_many, kwargs=with_name) for c in connections]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        print(json.dumps([seconds, [t for c in connections for t in c.took]]), flush=True)


class Client:
    """The client's process."""

    def __init__(self, orders: Orders) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ingest", "client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._write(msgspec.json.encode(orders).decode())

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def run(self, kind: str) -> tuple[float, list[float]]:
        """Return the seconds of one round, and of each of its requests."""
        self._write(kind)
        assert self._process.stdout is not None
        seconds, each = json.loads(self._process.stdout.readline())
        return seconds, each

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process and of those it started, of all their threads."""
    stats = (Path(f"/proc/{each}/stat").read_text() for each in family(pid))
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def make_nodes(data: Path) -> list[str]:
    """Create nodes and return their ids and tokens."""
    data.mkdir(mode=0o700)
    registry = Registry(data, clock=SystemClock())
    try:
        made = [registry.create_node(f"bench-{number}") for number in range(CONNECTIONS)]
    finally:
        registry.close()
    return [f"{node.node_id} {node.auth_token}" for node in made]


@contextmanager
def running_plexd(data: Path, bodies: list[bytes]) -> Iterator[tuple[int, Target]]:
    """Yield a server's process id, and how to reach it."""
    tokens = make_nodes(data)
    with Agent([*_SERVE, str(data)], {}) as server:
        address = server.read_line().removeprefix("listening on ").strip()
        yield server.pid, Target(int(address.rpartition(":")[2]), tokens, bodies)


@contextmanager
def running_victoria(data: Path, bodies: list[bytes]) -> Iterator[tuple[int, Target | None]]:
    """Yield the same of VictoriaMetrics; no target if it is not installed."""
    program = shutil.which(VICTORIA)
    if program is None:
        yield 0, None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, f"-storageDataPath={data}", f"-httpListenAddr=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield process.pid, Target(port, bodies=bodies)
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    """Return once it answers; wait ten seconds at most."""
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(url, timeout=10):  # noqa: S310 -- our own
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def flush(kind: str, orders: Orders) -> None:
    """Return once queries find what was sent."""
    if kind == VICTORIA and orders.victoria:
        wait_for(f"http://127.0.0.1:{orders.victoria.port}/internal/force_flush")
        return
    node, _, token = orders.plexd.tokens[0].partition(" ")
    url = f"http://127.0.0.1:{orders.plexd.port}/v1/nodes/{node}/ledger"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=60
    ):
        return


class Round(NamedTuple):
    """What one round took, in seconds."""

    wall: float
    cpu: float
    requests: list[float]


def measure() -> dict[str, list[Round]]:
    """Return every round, by kind."""
    reports = [batch() for _ in range(CONNECTIONS)]
    bodies = [compressed(report.to_json()) for report in reports]
    lines = [compressed(influx_lines(f"n{n}", report)) for n, report in enumerate(reports)]
    with (
        tempfile.TemporaryDirectory() as directory,
        running_plexd(Path(directory) / "plexd", bodies) as (plexd_pid, plexd),
        running_victoria(Path(directory) / "victoria", lines) as (victoria_pid, victoria),
        Client(orders := Orders(plexd, victoria)) as client,
    ):
        pids = {PLAIN: plexd_pid, NAMED: plexd_pid}
        if victoria:
            pids[VICTORIA] = victoria_pid
        taken: dict[str, list[Round]] = {kind: [] for kind in pids}
        for number in range(ROUNDS + 1):
            for kind in sorted(taken, reverse=bool(number % 2)):
                before = cpu_seconds(pids[kind])
                wall, each = client.run(kind)
                flush(kind, orders)
                if number:  # the first one warms up
                    taken[kind].append(Round(wall, cpu_seconds(pids[kind]) - before, each))
    return taken


def main() -> None:
    """Print the table."""
    points = CONNECTIONS * REQUESTS * POINTS
    rows: list[list[str]] = []
    plain = 0.0
    for kind, rounds in measure().items():
        seconds = statistics.median(one.wall for one in rounds)
        cpu = statistics.median(one.cpu for one in rounds)
        plain = plain or cpu
        each = sorted(1000 * took for one in rounds for took in one.requests)
        rows.append(
            [
                kind,
                f"{points / seconds:,.0f}",
                f"{cpu / points * 1e6:.1f}",
                f"{cpu / plain:.2f}",
                f"{statistics.median(each):.1f}",
                f"{each[len(each) * 99 // 100]:.1f}",
            ]
        )
    title = f"Ingest over HTTP, {CONNECTIONS} connections, gzip bodies of {POINTS} points"
    heads = ["", "points/s", "CPU us/point", "ratio", "median ms", "p99 ms"]
    table(title, heads, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        run_client(msgspec.json.decode(sys.stdin.readline(), type=Orders))
    else:
        main()
