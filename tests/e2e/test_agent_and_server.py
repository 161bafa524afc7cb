"""The two programs as a person runs them: as processes, over HTTP, and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.processes import ending_with_us

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "node-1"
PATIENCE = 40


class Programs:
    """Starts programs in one directory; whatever still runs at the end is killed by its id."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        name = arguments[0]
        log = (self.directory / f"{name}-{len(self.started)}.log").open("w")
        process = subprocess.Popen(
            ending_with_us(sys.executable, "-m", *arguments),
            env={**os.environ, **environment},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        self.started.append(process)
        return process

    def serve(self, listen: str = "127.0.0.1:0") -> tuple[subprocess.Popen[str], str]:
        process = self.start("plexd_server", "serve", "--listen", listen, "--data-dir", "server")
        assert process.stdout is not None
        return process, process.stdout.readline().removeprefix("listening on ").strip()

    def create_node(self) -> dict[str, Any]:
        node = self.directory / "node"
        node.mkdir(mode=0o700)
        output = str(node / "identity.json")
        command = ["node", "create", NODE, "--output", output, "--data-dir", "server"]
        assert self.start("plexd_server", *command).wait(PATIENCE) == 0
        identity: dict[str, Any] = json.loads((node / "identity.json").read_text())
        return identity

    def run_agent(self, address: str, **environment: str) -> subprocess.Popen[str]:
        return self.start(
            "plexd",
            "run",
            PLEXD_DATA_DIR=str(self.directory / "node"),
            PLEXD_API_BASE_URL=address,
            PLEXD_METRICS_COLLECT_INTERVAL="5s",
            PLEXD_METRICS_REPORT_INTERVAL="10s",
            PLEXD_LOG_LEVEL="debug",
            **environment,
        )

    def log_of(self, process: subprocess.Popen[str]) -> str:
        index = self.started.index(process)
        return next(self.directory.glob(f"*-{index}.log")).read_text()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def latest(address: str, token: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/v1/nodes/{NODE}/latest", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {point["group"]: point for point in json.load(answer)["points"]}


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """SIGTERM, and the clean end that has to follow."""
    process.send_signal(signal.SIGTERM)
    yield
    assert process.wait(PATIENCE) == 0


def test_what_an_agent_measured_is_stored_even_if_it_is_stopped_at_once(
    programs: Programs,
) -> None:
    identity = programs.create_node()
    server, address = programs.serve()
    agent = programs.run_agent(address)
    _wait_for_log(programs, agent, "system collected")
    with stopped(agent):
        pass
    stored = latest(address, identity["auth_token"])
    assert set(stored) == {"system", "agent"}
    meminfo = Path("/proc/meminfo").read_text()
    total = int(re.findall(r"MemTotal:\s+(\d+) kB", meminfo)[0]) * 1024
    assert stored["system"]["data"]["memory_total_bytes"] == total
    with stopped(server):
        pass


def test_points_outlive_a_server_that_was_killed_and_came_back(programs: Programs) -> None:
    identity = programs.create_node()
    server, address = programs.serve()
    agent = programs.run_agent(address)
    _wait_for_log(programs, agent, "agent started")
    server.kill()
    server.wait(PATIENCE)
    _wait_for_log(programs, agent, "metrics report failed")
    server, again = programs.serve(address.removeprefix("http://"))
    assert again == address
    _wait_for_points(address, identity["auth_token"])
    with stopped(agent):
        pass
    with stopped(server):
        pass


def test_a_port_that_is_taken_is_a_sentence(programs: Programs) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        server = programs.start("plexd_server", "serve", "--listen", listen, "--data-dir", "server")
        assert server.wait(PATIENCE) == 1
    (line,) = programs.log_of(server).splitlines()
    assert line.startswith(f"plexd-server: cannot listen on {listen}: address already in use")


def test_a_demo_ends_by_itself_with_its_points_read_back(programs: Programs) -> None:
    demo = programs.start("plexd", "demo", "--for", "3s", "--listen", "127.0.0.1:0")
    output, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, programs.log_of(demo)
    assert re.search(r"dashboard +http://127\.0\.0\.1:\d+/login\?token=\S+", output)
    assert "stored and read back: agent, system" in output


def test_a_demo_that_is_stopped_takes_its_server_along(programs: Programs) -> None:
    demo = programs.start("plexd", "demo", "--listen", "127.0.0.1:0")
    assert demo.stdout is not None
    lines = [demo.stdout.readline() for _ in range(3)]
    found = re.search(r"127\.0\.0\.1:(\d+)", "".join(lines))
    assert found is not None
    with stopped(demo):
        pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(found[1]))) != 0


def _wait_for_log(programs: Programs, process: subprocess.Popen[str], words: str) -> None:
    _until(lambda: words in programs.log_of(process), f"no {words!r} in the log")


def _wait_for_points(address: str, token: str) -> None:
    _until(lambda: {"system", "agent"} <= set(latest(address, token)), "no points stored")


def _until(condition: Any, failure: str) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, failure
        time.sleep(0.05)
