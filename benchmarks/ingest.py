"""Claim: points on the disk cost about what VictoriaMetrics asks for points in memory.

A real ``plexd-server`` receives gzip bodies, from as many nodes as there are connections; a body
has a point of ``system`` and of ``agent``, the rest are ``tunnel`` and ``latency``.
VictoriaMetrics (Debian's package, if it is installed) receives points alike as gzip Influx lines
from the same client (`benchmarks.senders`). Both run at once, their rounds alternate, and the
figures are medians of the rounds. Client and servers share the machine.

An answer of ``plexd-server`` means that the points are on the disk; an answer of VictoriaMetrics
means that they are in memory, to be written within five seconds. "acknowledged" counts until the
last answer, "asked" until questions find the points; CPU is that of all the server's processes
until then. The calls of ``fsync`` and ``fdatasync`` are counted in one more round, and the bytes
when both have ended. Everything that a server does in production is on, marks, limits and picture
included; the rate limit of a node is raised. One row has TLS as well.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

import trustme

from benchmarks.measure import table
from benchmarks.processes import Agent, family
from benchmarks.senders import PLEXD, VICTORIA, Client, Orders, Target
from plexd.clock import SystemClock
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS: Final = 7
ROUND_POINTS: Final = 200_000
_SERVE: Final = (sys.executable, "-m", "plexd_server", "serve", "--listen", "127.0.0.1:0")
_RATE: Final = ("--node-rate", "100000")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_COUNTED: Final = re.compile(r"\s(\d+)\s+(?:\d+\s+)?f(?:data)?sync$", re.MULTILINE)


class Case(NamedTuple):
    """So many connections, points in a body, and whether they speak TLS."""

    connections: int
    points: int
    has_tls: bool = False

    @property
    def requests(self) -> int:
        """How many reports of a node are a round."""
        return max(3, ROUND_POINTS // (self.connections * self.points))

    def __str__(self) -> str:
        return f"{self.connections} x {self.points}{', TLS' * self.has_tls}"


CASES: Final = (
    Case(16, 22),
    Case(16, 100),
    Case(16, 1000),
    Case(64, 22),
    Case(64, 100),
    Case(64, 1000),
    Case(16, 100, has_tls=True),
)


class Running(NamedTuple):
    """A server: its process id, how to reach it, how to wait for its points, and its files."""

    pid: int
    target: Target
    flush: urllib.request.Request
    data: Path


class Round(NamedTuple):
    """What a round took, in seconds: until acknowledged, until asked, of CPU, each request."""

    acknowledged: float
    asked: float
    cpu: float
    each: list[float]


class Result(NamedTuple):
    """All rounds of a server in a case, its syncs in one more, and the bytes of a point."""

    rounds: list[Round]
    syncs: int
    bytes_stored: float


@contextmanager
def running_plexd(data: Path, case: Case, tls: list[str]) -> Iterator[Running]:
    """Yield a server with a node for each connection."""
    data.mkdir(mode=0o700)
    registry = Registry(data, clock=SystemClock())
    try:
        nodes = [registry.create_node(f"bench-{n}") for n in range(case.connections)]
    finally:
        registry.close()
    with Agent([*_SERVE, *_RATE, *tls, "--data-dir", str(data)], {}) as server:
        address = server.read_line().removeprefix("listening on ").strip()
        port = int(address.rpartition(":")[2])
        ledger = urllib.request.Request(  # noqa: S310 -- our own server on loopback
            f"{address}/v1/nodes/{nodes[0].node_id}/ledger",
            headers={"Authorization": f"Bearer {nodes[0].auth_token}"},
        )
        target = Target(port, [n.node_id for n in nodes], [n.auth_token for n in nodes])
        yield Running(server.pid, target, ledger, data)


@contextmanager
def running_victoria(data: Path, case: Case, tls: list[str]) -> Iterator[Running]:
    """Yield VictoriaMetrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [f"-storageDataPath={data}", f"-httpListenAddr=127.0.0.1:{port}"]
    if tls:
        options += ["-tls", f"-tlsCertFile={tls[1]}", f"-tlsKeyFile={tls[3]}"]
    base = f"http{'s' * bool(tls)}://127.0.0.1:{port}"
    with subprocess.Popen([VICTORIA, *options], stderr=subprocess.DEVNULL) as process:
        try:
            nodes = [f"bench-{n}" for n in range(case.connections)]
            flush = urllib.request.Request(f"{base}/internal/force_flush")  # noqa: S310 -- likewise
            yield Running(process.pid, Target(port, nodes), flush, data)
        finally:
            process.terminate()


def wait_for(request: urllib.request.Request) -> None:
    """Return once it is answered; try for ten seconds at most."""
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(request, timeout=60):  # noqa: S310
            return
        time.sleep(0.1)
    raise RuntimeError(f"{request.full_url} does not answer")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process and of those it started, of all their threads."""
    stats = (Path(f"/proc/{each}/stat").read_text() for each in family(pid))
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def certificate(directory: Path) -> tuple[list[str], str]:
    """Write a certificate for loopback; return a server's options for it, and its authority."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    chain, key = directory / "chain.pem", directory / "key.pem"
    for pem in issued.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    os.environ["SSL_CERT_FILE"] = str(directory / "authority.pem")
    authority.cert_pem.write_to_path(directory / "authority.pem")
    return ["--tls-cert", str(chain), "--tls-key", str(key)], authority.cert_pem.bytes().decode()


def measure(case: Case) -> dict[str, Result]:
    """Return what each server that there is did in a case."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        tls, authority = certificate(directory) if case.has_tls else ([], "")
        with ExitStack() as servers:
            plexd = servers.enter_context(running_plexd(directory / "plexd", case, tls))
            running = {PLEXD: plexd}
            if shutil.which(VICTORIA):
                running[VICTORIA] = servers.enter_context(
                    running_victoria(directory / "victoria", case, tls)
                )
            for server in running.values():
                wait_for(server.flush)
            rounds, syncs = _measured(case, running, authority)
        points = case.connections * case.points * case.requests * (ROUNDS + 2)
        return {
            kind: Result(rounds[kind], syncs[kind], _size(server.data) / points)
            for kind, server in running.items()
        }


def _measured(
    case: Case, running: dict[str, Running], authority: str
) -> tuple[dict[str, list[Round]], dict[str, int]]:
    targets = {kind: server.target for kind, server in running.items()}
    rounds: dict[str, list[Round]] = {kind: [] for kind in running}
    with Client(Orders(case.points, targets, authority)) as client:
        for number in range(ROUNDS + 1):
            for kind in sorted(running, reverse=bool(number % 2)):
                taken = _round(client, kind, running[kind], case)
                if number:  # the first one warms up
                    rounds[kind].append(taken)
        return rounds, {kind: _syncs(client, kind, running[kind], case) for kind in running}


def _round(client: Client, kind: str, server: Running, case: Case) -> Round:
    before = cpu_seconds(server.pid)
    outcome = client.run(kind, case.requests)
    flushing = time.perf_counter()
    wait_for(server.flush)
    waited = time.perf_counter() - flushing
    cpu = cpu_seconds(server.pid) - before
    return Round(outcome.seconds, outcome.seconds + waited, cpu, outcome.each)


def _syncs(client: Client, kind: str, server: Running, case: Case) -> int:
    """Count the syncs of one more round; -1 without strace."""
    if not shutil.which("strace"):
        client.run(kind, case.requests)
        return -1
    command = ["strace", "-f", "-c", "-U", "calls,errors,name", "-e", "trace=fsync,fdatasync"]
    pids = [word for pid in family(server.pid) for word in ("-p", str(pid))]
    with subprocess.Popen([*command, *pids], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        for _ in family(server.pid):
            strace.stderr.readline()  # it says of each process that it has it
        client.run(kind, case.requests)
        wait_for(server.flush)
        strace.send_signal(signal.SIGINT)
        return sum(map(int, _COUNTED.findall(strace.stderr.read())))


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def main() -> None:
    """Print the table."""
    rows: list[list[str]] = []
    for case in CASES:
        found = measure(case)
        peer = found.get(VICTORIA)
        rows += [
            _row(str(case), kind, case, result, None if kind == VICTORIA else peer)
            for kind, result in found.items()
        ]
    heads = ["connections x points", "", "acknowledged/s", "asked/s", "x", "CPU us/point", "x"]
    heads += ["p50 ms", "p99 ms", "x", "syncs", "bytes/point"]
    title = f"Ingest over HTTP, {ROUNDS} rounds; x: of the peer's"
    table(title, heads, rows)


def _row(name: str, kind: str, case: Case, result: Result, peer: Result | None) -> list[str]:
    points = case.connections * case.points * case.requests

    def median(of: Result, what: str) -> float:
        return float(statistics.median(getattr(one, what) for one in of.rounds))

    def ratio(own: float, other: float) -> str:
        return f"{own / other:.2f}"

    return [
        name,
        kind,
        f"{points / median(result, 'acknowledged'):,.0f}",
        f"{points / median(result, 'asked'):,.0f}",
        ratio(median(peer, "asked"), median(result, "asked")) if peer else "",
        f"{median(result, 'cpu') / points * 1e6:.2f}",
        ratio(median(result, "cpu"), median(peer, "cpu")) if peer else "",
        f"{_percentile(result, 50):.1f}",
        f"{_percentile(result, 99):.1f}",
        ratio(_percentile(result, 99), _percentile(peer, 99)) if peer else "",
        f"{result.syncs:,} of {case.connections * case.requests:,}",
        f"{result.bytes_stored:.1f}",
    ]


def _percentile(result: Result, percent: int) -> float:
    """Return the milliseconds within which so many of all requests were answered."""
    each = sorted(took for one in result.rounds for took in one.each)
    return 1000 * each[len(each) * percent // 100]


if __name__ == "__main__":
    main()
