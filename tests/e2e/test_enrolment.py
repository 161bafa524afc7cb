"""The how-to "two machines in five minutes", as it is written: nothing is prepared by hand."""

from __future__ import annotations

import json
import signal
from contextlib import closing, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from e2e.mesh_agents import Place, until
from e2e.test_agent_and_server import PATIENCE, Programs
from wireguard.mesh import Mesh, Node, needs_a_mesh

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_a_mesh

SERVER = "192.0.2.254:8080"


class TwoMachines:
    """A server on the mesh's switch, and two machines that have a tunnel and nothing of plexd."""

    def __init__(self, mesh: Mesh, programs: Programs) -> None:
        self.mesh = mesh
        self.programs = programs
        self.switch = Place(mesh._switch)
        self.login = ""

    def serve(self) -> None:
        self.switch.run("ip", "link", "set", "lo", "up")
        self.switch.run("ip", "address", "add", "192.0.2.254/24", "dev", "br0")
        with self.switch.inside():
            process, _ = self.programs.serve(SERVER)
        assert process.stdout is not None
        self.login = process.stdout.readline().partition("token=")[2].strip()

    def command(self, *arguments: str, **environment: str) -> str:
        process = self.programs.start(*arguments, **environment)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, self.programs.log_of(process)
        return out

    def register(self, node: Node, token: str, hostname: str) -> str:
        options = ["--server", f"http://{SERVER}", "--interface", node.interface]
        options += ["--public-key", node.public_key, "--hostname", hostname]
        with Place(node.namespace).inside():
            return self.command(
                "plexd",
                "register",
                *options,
                PLEXD_TOKEN=token,
                PLEXD_DATA_DIR=str(self.programs.directory / hostname),
            )

    def run(self, node: Node, hostname: str) -> subprocess.Popen[str]:
        with Place(node.namespace).inside():
            return self.programs.start(
                "plexd",
                "run",
                PLEXD_DATA_DIR=str(self.programs.directory / hostname),
                PLEXD_API_BASE_URL=f"http://{SERVER}",
                PLEXD_WIREGUARD_INTERFACE=node.interface,
                PLEXD_METRICS_COLLECT_INTERVAL="5s",
                PLEXD_METRICS_REPORT_INTERVAL="10s",
                PLEXD_METRICS_BATCH_SIZE="1",
                PLEXD_PING_TIMEOUT="1s",
            )

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.login}"}
        with self.switch.inside(), closing(HTTPConnection(SERVER, timeout=10)) as server:
            server.request("GET", path, headers=headers)
            answer = server.getresponse()
            assert answer.status == 200, answer.read()
            return json.load(answer)

    def seen(self, node_id: str) -> dict[str, set[str]]:
        """The peers of a node by group, those that answered its pings."""
        points = self.get(f"/v1/nodes/{node_id}/latest")["points"]
        answered = [p for p in points if p["data"].get("rtt_nano", 0) >= 0]
        return {
            group: {p["peer_id"] for p in answered if p["group"] == group}
            for group in ("tunnel", "latency")
        }


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[TwoMachines]:
    programs = Programs(tmp_path)
    with Mesh(2) as mesh:
        mesh.shake_hands()
        yield TwoMachines(mesh, programs)
        for process in programs.started:
            if process.poll() is None:
                process.kill()
            with suppress(ValueError):  # whose output was read already
                process.communicate(timeout=PATIENCE)


def test_two_machines_enrol_themselves_and_see_each_other(machines: TwoMachines) -> None:
    machines.serve()
    create = ("plexd_server", "token", "create", "--uses", "2", "--data-dir", "server")
    token = machines.command(*create).strip()
    berlin, rome = machines.mesh.nodes

    said = machines.register(berlin, token, "berlin")
    assert f"this machine is node berlin, {berlin.address} in the mesh" in said
    assert "with 1 peer" in machines.register(rome, token, "rome")
    agents = [machines.run(berlin, "berlin"), machines.run(rome, "rome")]

    both = [
        ("berlin", {"tunnel": {"rome"}, "latency": {"rome"}}),
        ("rome", {"tunnel": {"berlin"}, "latency": {"berlin"}}),
    ]
    for node_id, expected in both:
        until(
            lambda of=node_id, wanted=expected: machines.seen(of) == wanted,  # type: ignore[misc]
            lambda: (machines.get("/v1/nodes/berlin/latest"), machines.seen("berlin")),
        )
    for agent in agents:
        agent.send_signal(signal.SIGTERM)
    assert [agent.wait(PATIENCE) for agent in agents] == [0, 0]
