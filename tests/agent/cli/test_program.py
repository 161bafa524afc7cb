"""The program as its users start it: processes, exit statuses, signals, pipes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plexd import __version__
from plexd.agent.identity import Identity, save_identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "0123456789abcdef0123456789ABCDEF"
PLEXD = [sys.executable, "-m", "plexd"]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("PLEXD_")}


def plexd(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLEXD, *argv],
        env=ENVIRON | environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'plexd() {{ {shlex.join(PLEXD)} "$@"; }}; {script}'],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_version() -> None:
    done = plexd("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"plexd {__version__}\n", "")


def test_the_version_costs_no_heavy_import() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "plexd", "--version"],
        # Measuring coverage would import things of its own.
        env={name: value for name, value in ENVIRON.items() if not name.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "plexd.agent.cli.arguments" in loaded
    heavy = {"asyncio", "msgspec", "yaml", "logging", "dataclasses", "shutil", "ssl", "socket"}
    assert not loaded & (heavy | {"plexd.api", "plexd.metrics", "plexd.agent.cli.commands"})


def test_showing_the_configuration_loads_nothing_that_sends() -> None:
    script = (
        "import sys; from plexd.agent.cli.main import main; main(['config', 'show']); "
        "print(sorted({'yaml', 'cryptography', 'isal'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRON, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n[]\n")


def test_collect_measures_this_machine() -> None:
    done = plexd("collect", "--json")
    assert done.returncode == 0
    groups = {point["group"] for point in json.loads(done.stdout)}
    assert {"system", "agent"} <= groups


def test_a_reader_that_leaves_is_no_error() -> None:
    done = shell('set -o pipefail; plexd config show | head -1; echo "${PIPESTATUS[0]}"')
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""
    done = shell('plexd --help | true; echo "${PIPESTATUS[0]}"')
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.slow
def test_an_output_that_cannot_be_written_is_one_line_and_status_1() -> None:
    for where, reason in [
        ("> /dev/full", "No space left on device"),
        (">&-", "Bad file descriptor"),
    ]:
        for command in ("config show", "--version"):
            done = shell(f"plexd {command} {where}")
            assert done.returncode == 1
            assert done.stderr == f"plexd: cannot write to standard output: {reason}\n"


def test_a_closed_standard_error_changes_no_status() -> None:
    assert shell("plexd --config /none config show 2>&-").returncode == 2
    assert shell("plexd bogus 2>/dev/full").returncode == 2
    assert shell("plexd --version 2>&- <&-").stdout == f"plexd {__version__}\n"


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., list[str]]:
    save_identity(tmp_path, Identity("node-a", "10.99.0.1", KEY, "canary-token"))

    def settings(**more: str) -> list[str]:
        # Port 1 of the loopback: refused at once, as a control plane that is down.
        environ = {"PLEXD_DATA_DIR": str(tmp_path), "PLEXD_API_BASE_URL": "http://127.0.0.1:1"}
        return ["env", *(f"{name}={value}" for name, value in (environ | more).items()), *PLEXD]

    return settings


def _until(process: subprocess.Popen[str], text: str) -> str:
    """The log up to the line that contains ``text``."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}: {seen}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_agent_ends_cleanly_at_a_signal(
    node: Callable[..., list[str]], number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*node(), "run"], env=ENVIRON, stderr=subprocess.PIPE, text=True
    ) as agent:
        log = _until(agent, "agent started")
        agent.send_signal(number)
        agent.send_signal(number)
        _, rest = agent.communicate(timeout=50)
    assert agent.returncode == 0
    assert "Traceback" not in log + rest
    assert "canary-token" not in log + rest
    assert KEY not in log + rest


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_an_agent_whose_log_cannot_be_written_goes_on(
    node: Callable[..., list[str]], where: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plane:
        plane.settimeout(50)
        url = f"http://127.0.0.1:{_port(plane)}"
        command = shlex.join([*node(PLEXD_API_BASE_URL=url), "run"])
        with subprocess.Popen(["bash", "-c", f"exec {command} 2>{where}"], env=ENVIRON) as agent:
            connection, _ = plane.accept()  # it lives: it knocks at its control plane
            connection.close()
            plane.close()
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(timeout=50) == 0


def _port(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def test_an_agent_that_cannot_start_says_why_in_one_line(node: Callable[..., list[str]]) -> None:
    done = subprocess.run(
        [*node(PLEXD_DATA_DIR="/proc"), "run"],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("plexd: ")
    assert "Traceback" not in done.stderr
