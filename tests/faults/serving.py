"""``plexd-server`` as a process that may be killed, and what it stored, read from its file."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

import plexd_server.app
from faults.numbered import json_of
from plexd.api import GROUP_LATENCY, LatencyResult, MetricBatch, MetricPoint
from plexd_server.cli.main import main as run_command
from plexd_server.store import DuckDBStore
from support.processes import ending_with_us

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from faults.forks import Forks, Started

__all__ = ["Server", "main"]

_PATIENCE_SECONDS = 40.0
# Loaded when a command needs it otherwise, which would be once a run.
_PRELOADED = (plexd_server.app,)


class Arguments(msgspec.Struct):
    """A command line of ``plexd-server``."""

    words: list[str]


def main(argument: str) -> int:
    """Run one command; for `faults.forks`."""
    return run_command(msgspec.json.decode(argument, type=Arguments).words)


class _Process:
    """The real command, with the methods of `Started`."""

    def __init__(self, words: list[str], output: Path) -> None:
        with output.open("ab") as out:
            self._process = subprocess.Popen(
                ending_with_us(sys.executable, "-m", "plexd_server", *words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.pid = self._process.pid

    def kill(self) -> int:
        self._process.kill()
        return self.wait()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = _PATIENCE_SECONDS) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


class Server:
    """One data directory on one port; a context manager that leaves nothing running.

    ``forks`` of this module start it in a fifth of the time; without it is the real command.
    ``data`` is its data directory.
    """

    def __init__(self, directory: Path, forks: Forks | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        self._forks = forks
        self.data = directory / "data"
        self._port = _free_port()
        self._tokens: dict[str, str] = {}
        self.running: _Process | Started | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def create_node(self, node: str) -> str:
        """Its token."""
        output = self.directory / f"{node}.json"
        words = ["node", "create", node, "--output", str(output), "--data-dir", str(self.data)]
        assert run_command(words) == 0
        self._tokens[node] = json.loads(output.read_text())["auth_token"]
        return self._tokens[node]

    def start(self, *, held: bool = False) -> _Process | Started:
        listen = f"127.0.0.1:{self._port}"
        words = ["serve", "--listen", listen, "--data-dir", str(self.data)]
        if self._forks is None:
            assert not held
            self.running = _Process(words, self.log)
        else:
            self.running = self._forks.start(Arguments(words), self.log, held=held)
        return self.running

    def kill(self) -> int:
        """SIGKILL; its wait status."""
        running, self.running = self.running, None
        assert running is not None
        return running.kill()

    def stop(self) -> None:
        """SIGTERM, and the clean end that has to follow."""
        running, self.running = self.running, None
        assert running is not None
        running.send(signal.SIGTERM)
        assert running.wait() == 0, self.tail()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def post(self, node: str, name: str, numbers: range) -> dict[str, Any] | None:
        """Send one batch; the answer, None if there was none."""
        body = b"[" + b",".join(map(json_of, numbers)) + b"]"
        headers = {
            "Authorization": f"Bearer {self._tokens[node]}",
            "Content-Type": "application/json",
            "Plexd-Batch": name,
            "Plexd-Dropped": "0",
        }
        return self._ask(f"/v1/nodes/{node}/metrics", headers, body)

    def ledger(self, node: str) -> dict[str, Any]:
        """The node's ledger; the tables may just be on their way back."""
        headers = {"Authorization": f"Bearer {self._tokens[node]}"}
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (answer := self._ask(f"/v1/nodes/{node}/ledger", headers)) is None:
            assert time.monotonic() < give_up, self.tail()
        return answer

    def _ask(
        self, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> dict[str, Any] | None:
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, urllib.error.HTTPError, ValueError):
            return None

    def wait_until_it_answers(self) -> None:
        """Another process has nothing to wait on but what it shows."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not self.answers():
            assert time.monotonic() < give_up, self.tail()
            time.sleep(0.005)

    def wait_until_it_is_ready(self) -> None:
        """Return once both of its processes work: it listens before that."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while self._ask("/readyz", {}) is None:
            assert time.monotonic() < give_up, self.tail()
            time.sleep(0.005)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def wait_for_tables(self, *killed: int) -> int:
        """The process that has the tables, from its first moment on; not one that was killed."""
        assert self.running is not None
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not (found := [pid for pid in _children(self.running.pid) if pid not in killed]):
            assert time.monotonic() < give_up, self.tail()
            time.sleep(0.005)
        return found[0]

    def stored(self, node: str) -> list[bytes]:
        """Every point of ``node``, as JSON. The server must have been stopped."""
        DuckDBStore(self.data).close()  # fills in what a kill left in the journal
        with duckdb.connect(self.data / "points.duckdb", read_only=True) as store:
            rows = store.execute(
                "SELECT ts, peer_id, rtt_nano FROM points_latency WHERE node_id = ?", [node]
            ).fetchall()
        return [_json(*row) for row in rows]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running is not None:
            self.kill()


def _children(pid: int) -> list[int]:
    """The processes that the threads of another one started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # the thread has just ended
            found += map(int, file.read_text().split())
    return found


def _json(moment: datetime, peer: str, number: int) -> bytes:
    """The point as it was sent, made from what was stored of it."""
    data = LatencyResult(peer, number)
    stamp = moment.replace(tzinfo=UTC)
    point = MetricPoint(timestamp=stamp, group=GROUP_LATENCY, peer_id=peer, data=data)
    return MetricBatch([point]).to_json()[1:-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
