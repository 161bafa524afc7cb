"""The client of the ingest benchmark: one process, one connection for each simulated node.

``python -m benchmarks.senders`` reads `Orders` from the first line of standard input, and then a
round from each line. All bodies of a round are made before it begins, each with points of its own
time, as a fleet sends them. One thread serves all connections, so that the client costs little and
a node's next report leaves as soon as the one before is answered.
"""

from __future__ import annotations

import random
import secrets
import selectors
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

import msgspec
from isal import isal_zlib
from msgspec import Struct

from plexd.api import AgentStats, LatencyResult, MetricBatch, MetricPoint, TunnelStats
from plexd.metrics.testing import system_point

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLEXD: Final = "plexd-server"
VICTORIA: Final = "victoria-metrics"
_STEP: Final = timedelta(seconds=1)
_BEGAN_AGO: Final = timedelta(hours=12)
_GZIP: Final = 31
_FASTEST: Final = 1


class Target(Struct):
    """One server for the client: its port, and who sends to it."""

    port: int
    nodes: list[str]
    tokens: list[str] = []


class Orders(Struct):
    """What the client has to know. ``authority`` is the certificate of TLS, if it is spoken."""

    points: int
    targets: dict[str, Target]
    authority: str = ""


class Ordered(Struct):
    """A round: so many reports of each node."""

    kind: str
    requests: int


class Outcome(Struct):
    """The seconds of a round, and of each of its requests."""

    seconds: float
    each: list[float]


class Workload:
    """The reports of one node with so many ``points`` in each: of itself, and of its peers."""

    def __init__(self, points: int) -> None:
        self._peers = [f"peer-{secrets.token_hex(4)}" for _ in range((points - 2) // 2)]
        self._now = datetime.now(UTC) - _BEGAN_AGO
        self._sent = 0

    def __next__(self) -> MetricBatch:
        self._now += _STEP
        self._sent += 1
        agent = AgentStats(42, 2**23, 2**24, 10**6, 12, float(self._sent), 3)
        points = [
            system_point(self._now),
            MetricPoint(timestamp=self._now, group="agent", data=agent),
        ]
        for number, peer in enumerate(self._peers):
            points += self._of_peer(number, peer)
        return MetricBatch(points)

    def _of_peer(self, number: int, peer: str) -> Iterator[MetricPoint]:
        tunnel = TunnelStats(
            peer_id=peer,
            last_handshake_time=self._now,
            rx_bytes=(number + self._sent) << 20,
            tx_bytes=(number + self._sent) << 19,
            handshake_succeeded=True,
            handshake_stale=False,
            packet_loss_percent=0.5,
        )
        latency = LatencyResult(peer, 15_000_000 + random.randrange(10**6))  # noqa: S311
        yield MetricPoint(timestamp=self._now, group="tunnel", peer_id=peer, data=tunnel)
        yield MetricPoint(timestamp=self._now, group="latency", peer_id=peer, data=latency)


def influx_lines(node: str, points: MetricBatch) -> bytes:
    """Return the points in InfluxDB's line protocol, times and booleans as numbers."""
    lines: list[str] = []
    for point in points:
        peer = f",peer_id={point.peer_id}" if point.peer_id else ""
        assert isinstance(point.data, Struct)
        names = (name for name in point.data.__struct_fields__ if name != "peer_id")
        fields = ",".join(f"{name}={_number(getattr(point.data, name))}" for name in names)
        stamp = round(point.timestamp.timestamp() * 1e9)
        lines.append(f"{point.group},node_id={node}{peer} {fields} {stamp}")
    return "\n".join(lines).encode()


def _number(value: float | datetime) -> float:
    return value.timestamp() if isinstance(value, datetime) else float(value)


def compressed(body: bytes) -> bytes:
    """Return the body as a sender compresses it."""
    return isal_zlib.compress(body, _FASTEST, _GZIP)


class Sender:
    """One node, with a connection for each round.

    Its next report is sent when the one before was answered.
    """

    def __init__(self, target: Target, number: int, points: int, trust: str) -> None:
        self._port = target.port
        self._trust = trust
        self._node = target.nodes[number]
        self._token = target.tokens[number] if target.tokens else ""
        self._workload = Workload(points)
        self._points = points
        self._epoch = secrets.token_hex(16)
        self._first = 1
        self._requests: list[bytes] = []
        self._sent_at = 0.0
        self.took: list[float] = []

    def prepare(self, ordered: Ordered) -> None:
        """Make the requests of a round."""
        self.took = []
        self._requests = [self._request(ordered.kind) for _ in range(ordered.requests)][::-1]

    def connect(self) -> None:
        """Connect for a round."""
        self.socket = _connected(self._port, self._trust)

    def _request(self, kind: str) -> bytes:
        batch = next(self._workload)
        if kind == VICTORIA:
            return _post("/influx/write", influx_lines(self._node, batch))
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Plexd-Batch": f"{self._epoch};first={self._first};points={self._points}",
            "Plexd-After": "none;skipped=0",
            "Plexd-Dropped": "0",
        }
        self._first += self._points
        return _post(f"/v1/nodes/{self._node}/metrics", batch.to_json(), **headers)

    def send(self) -> bool:
        """Send the next report; return whether there was one."""
        if not self._requests:
            return False
        self._sent_at = time.perf_counter()
        self.socket.sendall(self._requests.pop())
        return True

    def receive(self) -> None:
        """Read the whole answer, which has to accept the report."""
        answer = b""
        while not _is_whole(answer):
            piece = self.socket.recv(65536)
            if not piece:
                raise RuntimeError(f"cut off after {answer!r}")
            answer += piece
        self.took.append(time.perf_counter() - self._sent_at)
        if b" 204 " not in answer and b'"duplicate":false' not in answer:
            raise RuntimeError(answer.decode())


def _connected(port: int, trust: str) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not trust:
        return made
    context = ssl.create_default_context(cadata=trust)
    return context.wrap_socket(made, server_hostname="127.0.0.1")


def _post(path: str, body: bytes, **headers: str) -> bytes:
    packed = compressed(body)
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Encoding: gzip",
        f"Content-Length: {len(packed)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + packed


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split()
    return bool(end) and len(body) >= (int(length[0]) if length else 0)


def run_round(senders: Sequence[Sender]) -> Outcome:
    """Send everything that was prepared."""
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            sender.send()
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        while selector.get_map():
            for key, _ in selector.select():
                key.data.receive()
                if not key.data.send():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
    seconds = time.perf_counter() - began
    return Outcome(seconds, [took for sender in senders for took in sender.took])


class Client:
    """The client's process; it ends with the context."""

    def __init__(self, orders: Orders) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.senders"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._write(orders)

    def run(self, kind: str, requests: int) -> Outcome:
        """Have a round made, and return when it has begun and ended."""
        self._write(Ordered(kind, requests))
        self._read()
        self._write(None)
        return msgspec.json.decode(self._read(), type=Outcome)

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(value) + b"\n")
        self._process.stdin.flush()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def main() -> None:
    """Do what comes on standard input."""
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    senders = {
        kind: [Sender(target, n, orders.points, orders.authority) for n in range(len(target.nodes))]
        for kind, target in orders.targets.items()
    }
    for line in sys.stdin:
        ordered = msgspec.json.decode(line, type=Ordered)
        for sender in senders[ordered.kind]:
            sender.prepare(ordered)
        for sender in senders[ordered.kind]:
            sender.connect()
        print(flush=True)
        sys.stdin.readline()
        outcome = run_round(senders[ordered.kind])
        print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main()
