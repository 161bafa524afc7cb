"""Aim: beside 5,000 slow connections, all others are answered within a second (p99).

A crowd in its own process holds that many connections to a real ``plexd-server``, the same number
of each kind, and opens a new one for each that the server closes: idle ones, heads and bodies that
arrive a byte a second, answers that are not read. Meanwhile another client repeats what a healthy
node and a browser do. Its times without the crowd are measured first. The time that the server
keeps a connection of each kind is counted from its opening to its end.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import table
from benchmarks.processes import Agent
from benchmarks.senders import Workload, compressed
from plexd.clock import SystemClock
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 5_000
SECONDS = 130.0
QUIET_SECONDS = 15.0
PAUSE_SECONDS = 0.25
_PER_SECOND = 500
_ESTABLISHED = 1  # the kernel's number
_STATIC = "/static/uplot.js"


def main() -> None:
    """Start the server, measure without the crowd, start the crowd, measure again."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 1000:
        print(f"cannot hold {CONNECTIONS:,} connections: at most {hard} files may be open")
        return
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "server"
        data.mkdir(0o700)
        registry = Registry(data, clock=SystemClock())
        slow, healthy = (registry.create_node(name).auth_token for name in ("slow", "healthy"))
        registry.close()
        serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
        with Agent([sys.executable, "-m", "plexd_server", *serve], {}) as server:
            port = int(server.read_line().rpartition(":")[2])
            quiet = _Healthy(port, healthy).measure(QUIET_SECONDS)
            crowd = [sys.executable, "-m", "benchmarks.slow", str(port), slow]
            with Agent(crowd, {}) as holding:
                holding.read_line()  # the crowd is complete
                before = _resident_mib(server.pid)
                crowded = _Healthy(port, healthy).measure(SECONDS)
                after = _resident_mib(server.pid)
                holding.write_line("enough")
                borne = json.loads(holding.read_line())
    _show(quiet, crowded, borne)
    print(f"  the server's memory: {before} MiB with the crowd, {after} MiB at its end")


class _Healthy:
    """A node and a browser, on one connection each."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.said = b""
        self._body = compressed(next(Workload(100)).to_json())
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }

    def measure(self, seconds: float) -> dict[str, list[float]]:
        """Measure the milliseconds of each kind of request."""
        kinds: dict[str, Callable[[], int]] = {
            "a report of 100 points": self._report,
            "the newest points": lambda: self._get("/v1/nodes/healthy/latest"),
            "/healthz": lambda: self._get("/healthz"),
            "/healthz on a new connection": self._connect,
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind, ask in kinds.items():
                began = time.perf_counter()
                status = ask()
                taken[kind].append((time.perf_counter() - began) * 1e3)
                if status != http.client.OK:
                    raise SystemExit(f"{kind}: {status} {self.said[:200]!r}")
            time.sleep(PAUSE_SECONDS)
        return taken

    def _report(self) -> int:
        self._connection.request("POST", "/v1/nodes/healthy/metrics", self._body, self._headers)
        return self._answered()

    def _get(self, path: str) -> int:
        self._connection.request("GET", path, headers=self._headers)
        return self._answered()

    def _answered(self) -> int:
        with self._connection.getresponse() as answer:
            self.said = answer.read()
            return answer.status

    def _connect(self) -> int:
        kept, self._connection = (
            self._connection,
            http.client.HTTPConnection("127.0.0.1", self._port),
        )
        try:
            return self._get("/healthz")
        finally:
            self._connection.close()
            self._connection = kept


def _resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def _show(
    quiet: dict[str, list[float]],
    crowded: dict[str, list[float]],
    borne: dict[str, list[float]],
) -> None:
    rows = []
    for kind, times in crowded.items():
        numbers = [*_p50_p99(quiet[kind]), *_p50_p99(times), max(times)]
        rows.append([kind, f"{len(times):,}", *(f"{number:,.1f}" for number in numbers)])
    head = ["ms", "asked", "quiet", "p99", "crowded", "p99", "most"]
    table(f"a healthy client beside {CONNECTIONS:,} slow connections", head, rows)
    print()
    ends = [
        [kind, f"{len(times):,}", f"{statistics.median(times):.1f}", f"{max(times):.1f}"]
        for kind, times in borne.items()
        if times
    ]
    table("closed by the server after", ["seconds", "closed", "median", "most"], ends)


def _p50_p99(times: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


class _Crowd:
    """Connections of each kind, opened again when they are closed."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self.ended: dict[str, list[float]] = defaultdict(list)
        self._open = 0
        self.complete = asyncio.Event()
        length = b"Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n"
        local = b" HTTP/1.1\r\nHost: localhost\r\n"
        bearer = f"Authorization: Bearer {token}\r\n".encode()
        self.kinds: dict[str, tuple[bytes, bytes]] = {
            "idle": (b"", b""),
            "idle after an answer": (b"GET /healthz" + local + b"\r\n", b""),
            "head, a byte a second": (b"GET /" + local, b"X"),
            "body of a node, a byte a second": (
                b"POST /v1/nodes/slow/metrics" + local + bearer + length,
                b"[",
            ),
            "body of an application": (b"POST /v1/register" + local + length, b"{"),
            "body without a token": (b"POST /v1/nodes/slow/metrics" + local + length, b"["),
            "answers not read": ((f"GET {_STATIC}".encode() + local + b"\r\n"), b""),
        }

    async def stay(self) -> None:
        """Hold all connections until cancelled."""
        names = list(self.kinds)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CONNECTIONS):
                tasks.create_task(self._again_and_again(names[number % len(names)]))
                await asyncio.sleep(1 / _PER_SECOND)

    async def _again_and_again(self, kind: str) -> None:
        start, drip = self.kinds[kind]
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**10)
                await self._hold(kind, reader, writer, start, drip)
            await asyncio.sleep(0.1)

    async def _hold(
        self,
        kind: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        start: bytes,
        drip: bytes,
    ) -> None:
        began = time.monotonic()
        self._open += 1
        if self._open >= CONNECTIONS * 0.95:
            self.complete.set()
        # A client that reads accepts the answer; the kernel says whether the others are closed.
        reads = kind != "answers not read"
        ended = asyncio.create_task(_end_of(reader) if reads else asyncio.Event().wait())
        connection = writer.get_extra_info("socket")
        try:
            writer.write(start)
            while not ended.done() and (reads or _is_established(connection)):
                await asyncio.wait({ended}, timeout=1)
                if drip and not ended.done():
                    writer.write(drip)
            self.ended[kind].append(time.monotonic() - began)
        finally:
            self._open -= 1
            ended.cancel()
            writer.transport.abort()


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Return when the server has closed the connection."""
    with suppress(OSError):
        while await reader.read(1000):
            pass


def _is_established(connection: socket.socket) -> bool:
    state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == _ESTABLISHED


async def _crowd(port: int, token: str) -> None:
    """Print a line when the crowd is complete; after a line of stdin, how long each lasted."""
    crowd = _Crowd(port, token)
    staying = asyncio.create_task(crowd.stay())
    await crowd.complete.wait()
    print("here", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    staying.cancel()
    with suppress(asyncio.CancelledError):
        await staying
    print(json.dumps({kind: crowd.ended[kind] for kind in crowd.kinds}), flush=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_crowd(int(sys.argv[1]), sys.argv[2]))
