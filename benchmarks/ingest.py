"""Claim: knowing duplicates costs a server at most a tenth of its ingest.

A real ``plexd-server`` takes gzip bodies of 100 points (one of ``system`` and ``agent`` each, the
rest ``tunnel`` and ``latency``) on 16 connections of 16 nodes, from a client in a process of its
own that has all bodies ready. With names and without take turns; the figures are medians of the
rounds. CPU is the server's, of all its threads.
"""

from __future__ import annotations

import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec
from isal import isal_zlib

from benchmarks.measure import table
from benchmarks.processes import Agent
from plexd.api import AgentStats, LatencyResult, MetricBatch, MetricPoint, TunnelStats
from plexd.clock import SystemClock
from plexd.metrics.testing import system_point
from plexd_server.registry import Registry

CONNECTIONS = 16
POINTS = 100
REQUESTS = 60
ROUNDS = 9
# Each connection is one node, which may hurry here.
_SERVE = [sys.executable, "-m", "plexd_server", "serve", "--listen", "127.0.0.1:0"]
_SERVE += ["--node-rate", "0", "--data-dir"]
_TICKS = os.sysconf("SC_CLK_TCK")


class Orders(msgspec.Struct):
    """What the client process has to know."""

    host: str
    port: int
    tokens: list[str]


def report() -> bytes:
    """A compressed report as a node with 49 peers sends it."""
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
    return isal_zlib.compress(MetricBatch(points).to_json(), 1, wbits=31)


class Connection:
    """One node's connection; sends a report after the other, each after the answer to the last."""

    def __init__(self, orders: Orders, token: str) -> None:
        self._socket = socket.create_connection((orders.host, orders.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoch = secrets.token_hex(16)
        self._seq = 0
        self._body = report()
        self._head = (
            f"POST /v1/nodes/{token.partition(' ')[0]}/metrics HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token.partition(' ')[2]}\r\n"
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
            f"Content-Length: {len(self._body)}\r\n"
        )

    def send(self, *, with_name: bool) -> None:
        """One report; it has to be accepted."""
        names = ""
        if with_name:
            self._seq += 1
            names = f"Plexd-Batch: {self._epoch};seq={self._seq};offset=0;of={POINTS}\r\n"
            names += "Plexd-Dropped: 0\r\n"
        self._socket.sendall((self._head + names + "\r\n").encode() + self._body)
        answer = self._answer()
        if b'"duplicate":false' not in answer:
            raise RuntimeError(answer.decode())

    def _answer(self) -> bytes:
        """One whole answer; it may come in several pieces."""
        answer = b""
        while True:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"cut off after {answer!r}")
            answer += piece
            head, end, body = answer.partition(b"\r\n\r\n")
            if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
                return answer

    def send_many(self, *, with_name: bool) -> None:
        """One round."""
        for _ in range(REQUESTS):
            self.send(with_name=with_name)


def be_client(orders: Orders) -> None:
    """Run a round for every line on standard input, and tell how many seconds it took."""
    connections = [Connection(orders, token) for token in orders.tokens]
    for line in sys.stdin:
        with_name = {"with_name": line.strip() == "named"}
        threads = [threading.Thread(target=c.send_many, kwargs=with_name) for c in connections]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(time.perf_counter() - began, flush=True)


class Client:
    """The client's process."""

    def __init__(self, address: str, tokens: list[str]) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        orders = msgspec.json.encode(Orders(host, int(port), tokens)).decode()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ingest", "client", orders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, kind: str) -> float:
        """The seconds of one round."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def cpu_seconds(pid: int) -> float:
    """What the process used, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def make_nodes(data: Path) -> list[str]:
    """Ids and tokens of new nodes."""
    data.mkdir(mode=0o700)
    registry = Registry(data, clock=SystemClock())
    try:
        made = [registry.create_node(f"bench-{number}") for number in range(CONNECTIONS)]
    finally:
        registry.close()
    return [f"{node.node_id} {node.auth_token}" for node in made]


def measure() -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of every round, by kind."""
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "named": []}
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "server"
        tokens = make_nodes(data)
        with Agent([*_SERVE, str(data)], {}) as server:
            address = server.read_line().removeprefix("listening on ").strip()
            with Client(address, tokens) as client:
                for kind in taken:
                    client.run(kind)
                for number in range(ROUNDS):
                    for kind in sorted(taken, reverse=bool(number % 2)):
                        before = cpu_seconds(server.pid)
                        seconds = client.run(kind)
                        taken[kind].append((seconds, cpu_seconds(server.pid) - before))
    return taken


def main() -> None:
    """Print the table."""
    points = CONNECTIONS * REQUESTS * POINTS
    rows: list[list[str]] = []
    plain = 0.0
    for kind, rounds in measure().items():
        seconds = statistics.median(wall for wall, _ in rounds)
        cpu = statistics.median(used for _, used in rounds)
        plain = plain or cpu
        rate, each = f"{points / seconds:,.0f}", f"{cpu / points * 1e6:.1f}"
        rows.append([kind, rate, each, f"{cpu / plain:.2f}"])
    title = f"Ingest over HTTP, {CONNECTIONS} connections, gzip bodies of {POINTS} points"
    table(title, ["", "points/s", "CPU us/point", "ratio"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        be_client(msgspec.json.decode(sys.argv[2], type=Orders))
    else:
        main()
