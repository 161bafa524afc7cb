"""Aim: no callback of the server's event loop takes more than 20 ms of its own CPU.

A real ``plexd-server`` that counts the processor time of each callback of its loop (`thread_time`,
so that what other programs take does not count) has 10,000 simulated nodes with 10 peers each,
and 30 browsers that ask for the mesh and the fleet as often as the pages do. Registering the nodes
does not count: the count begins anew when all have reported once.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.measure import table

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES, PEERS = 10_000, 10
REPORT_SECONDS = 60
BROWSERS, EVERY_SECONDS = 30, 10
MEASURED_SECONDS = 60
MOST_MS = 20
_TOKEN = "bench-operator-token"  # noqa: S105 -- for this server only
_PATHS = ("/v1/fleet", "/v1/mesh")


def main() -> None:
    """Print the table."""
    title = f"callbacks of the loop, {NODES:,} nodes and {BROWSERS} browsers, CPU of each"
    heads = ["", "number", "p99.9", "longest", "at most"]
    table(title, heads, list(_rows()))


def _rows() -> Iterator[list[str]]:
    with TemporaryDirectory() as name:
        directory = Path(name)
        for kind, taken in _measured(directory).items():
            taken.sort()
            long = taken[len(taken) * 999 // 1000] if taken else 0.0
            longest = taken[-1] if taken else 0.0
            yield [kind, f"{len(taken):,}", _ms(long), _ms(longest), f"{MOST_MS} ms"]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _measured(directory: Path) -> dict[str, list[float]]:
    """Return the CPU seconds of the callbacks without browsers, and with them."""
    token, data = directory / "token", directory / "data"
    token.write_text(_TOKEN, "ascii")
    token.chmod(0o600)
    serve = ["serve", "--listen", "127.0.0.1:0", "--operator-token-file", token]
    counting = [sys.executable, "-m", "benchmarks.callbacks", "count", directory / "taken"]
    rate = NODES * (2 + 2 * PEERS) / REPORT_SECONDS
    shape = ["--nodes", NODES, "--peers", PEERS, "--rate", rate]
    with subprocess.Popen(
        [*map(str, [*counting, *serve, "--data-dir", data])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("listening on ").strip()
        simulate = [sys.executable, "-m", "plexd_server", "simulate", "--server", url]
        with subprocess.Popen(
            [*map(str, [*simulate, "--data-dir", data, *shape])], stdout=subprocess.DEVNULL
        ) as simulation:
            _wait_for_all(url)
            found = {"reports": _counted(server.pid, directory / "taken")}
            with _browsers(url):
                found["reports and browsers"] = _counted(server.pid, directory / "taken")
            simulation.terminate()
        server.terminate()
    return found


def _wait_for_all(url: str) -> None:
    while True:
        time.sleep(2)
        fleet = json.loads(_ask(url + "/v1/fleet"))
        if sum(node["received_at"] is not None for node in fleet["nodes"]) >= 0.9 * NODES:
            return  # some of the simulated nodes are silent


def _counted(server: int, written: Path) -> list[float]:
    """Return what the server counts from now on."""
    for seconds in (0, MEASURED_SECONDS):
        time.sleep(seconds)
        written.unlink(missing_ok=True)
        os.kill(server, signal.SIGUSR2)
        while not written.exists():
            time.sleep(0.1)
    return [float(line) for line in written.read_text("ascii").split()]


class _browsers:  # noqa: N801 -- a context manager
    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._look) for _ in range(BROWSERS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        is_over = False
        while not is_over:
            for path in _PATHS:
                _ask(self._url + path)
            is_over = self._is_over.wait(EVERY_SECONDS)


def _ask(url: str) -> bytes:
    request = urllib.request.Request(url)  # noqa: S310 -- our own server
    request.add_header("Authorization", f"Bearer {_TOKEN}")
    request.add_header("Accept-Encoding", "gzip")
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 -- the same
        body: bytes = answer.read()
        is_packed = answer.headers["Content-Encoding"] == "gzip"
    return gzip.decompress(body) if is_packed else body


def _count(path: Path) -> None:
    """Count the callbacks on this thread; a SIGUSR2 writes what was counted, and begins again."""
    taken: list[float] = []
    writes: list[None] = []  # a callback in which the count is written does not count
    run = asyncio.Handle._run  # noqa: SLF001 -- the one place that all callbacks pass
    main_thread = threading.get_ident()

    def timed(handle: asyncio.Handle) -> None:
        began, before = time.thread_time(), len(writes)
        run(handle)
        if threading.get_ident() == main_thread and len(writes) == before:
            taken.append(time.thread_time() - began)

    def write(*_: object) -> None:
        counted, taken[:] = list(taken), []
        part = path.with_suffix(".part")
        part.write_text("\n".join(map(str, counted)), "ascii")
        part.replace(path)
        writes.append(None)

    patched: Any = asyncio.Handle
    patched._run = timed  # noqa: SLF001 -- as above
    signal.signal(signal.SIGUSR2, write)


if __name__ == "__main__":
    if sys.argv[1:2] == ["count"]:
        _count(Path(sys.argv[2]))
        sys.argv[1:] = sys.argv[3:]
        with suppress(KeyboardInterrupt):
            runpy.run_module("plexd_server", run_name="__main__")
    else:
        main()
