"""The measured programs, started and ended as a person would do it."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import plexd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plexd.api import Peer

NODE = "bench"
EXPORTER = "prometheus-node-exporter"
_EXPORTER_PORT = 19_100
_PATIENCE_SECONDS = 60


def compile_sources() -> None:
    """Compile what is imported, as pip does when it installs a package."""
    compileall.compile_dir(Path(plexd.__file__).parent, quiet=2)


def cpu_seconds(pid: int) -> float:
    """The CPU that a process used so far, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> dict[str, int]:
    """The sizes of ``/proc/[pid]/status`` in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmRSS", "RssAnon", "VmHWM")))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


class Exporter:
    """Debian's node exporter with all its usual collectors; it ends with the context."""

    def __init__(self) -> None:
        command = [EXPORTER, f"--web.listen-address=127.0.0.1:{_EXPORTER_PORT}"]
        self._process = subprocess.Popen([*command, "--log.level=error"], stderr=subprocess.DEVNULL)
        self.pid = self._process.pid

    @staticmethod
    def is_installed() -> bool:
        """Whether there is one."""
        return shutil.which(EXPORTER) is not None

    def scrape(self) -> None:
        """Ask for the metrics once; wait until it listens."""
        url = f"http://127.0.0.1:{_EXPORTER_PORT}/metrics"
        for _ in range(100):
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    answer.read()
            except OSError:  # not listening yet
                time.sleep(0.05)
            else:
                return
        raise SystemExit(f"{EXPORTER} does not answer")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE_SECONDS)


def family(pid: int) -> list[int]:
    """Return the process and those that its threads started."""
    found = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # the thread has just ended
            found += map(int, file.read_text("ascii").split())
    return found


class Agent:
    """A child process with readable standard output; it ends with the context."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    @classmethod
    def reporting_to(
        cls, server: Server, *, interval: int, interface: str = "", peers: Sequence[Peer] = ()
    ) -> Self:
        """Start ``plexd run`` as the bench's node; warnings go to standard error."""
        config = server.identity.parent / "config.yaml"
        listed = [{name: getattr(p, name) for name in p.__struct_fields__} for p in peers]
        config.write_text(json.dumps({"peers": listed}), encoding="ascii")  # JSON is YAML
        return cls(
            [sys.executable, "-m", "plexd", "run", "--config", str(config)],
            {
                "PLEXD_DATA_DIR": str(server.identity.parent),
                "PLEXD_API_BASE_URL": server.address,
                "PLEXD_METRICS_COLLECT_INTERVAL": f"{interval}s",
                "PLEXD_METRICS_REPORT_INTERVAL": f"{2 * interval}s",
                "PLEXD_WIREGUARD_INTERFACE": interface,
                "PLEXD_LOG_LEVEL": "warning",
            },
        )

    def read_line(self) -> str:
        """Read the next line of its standard output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def write_line(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=_PATIENCE_SECONDS)


class Server:
    """``plexd-server serve`` with one node, its data in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._data = directory / "server"
        self.identity = directory / "node" / "identity.json"
        self.identity.parent.mkdir(mode=0o700)
        command = ["node", "create", NODE, "--output", str(self.identity)]
        subprocess.run(self._command(command), check=True, stdout=subprocess.DEVNULL)
        self._process = Agent(self._command(["serve", "--listen", "127.0.0.1:0"]), {})
        self.address = self._process.read_line().removeprefix("listening on ").strip()

    def _command(self, arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "plexd_server", *arguments, "--data-dir", str(self._data)]

    def wait_for_points(self, groups: set[str]) -> None:
        """Wait until points of all ``groups`` are stored."""
        token = json.loads(self.identity.read_bytes())["auth_token"]
        request = urllib.request.Request(  # noqa: S310  # our own server on loopback
            f"{self.address}/v1/nodes/{NODE}/latest", headers={"Authorization": f"Bearer {token}"}
        )
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # the same
                stored = {point["group"] for point in json.load(answer)["points"]}
            if groups <= stored:
                return
            time.sleep(0.5)
        raise TimeoutError(f"no points of {groups} within {_PATIENCE_SECONDS} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._process.__exit__(*args)
