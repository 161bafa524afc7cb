"""An agent on each node of a mesh, as processes, and the server they all report to.

The server listens on the mesh's switch, where each node reaches it beside its tunnels: so it goes
on hearing of a node whose tunnels are cut.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing, suppress
from datetime import datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final

from e2e.test_agent_and_server import PATIENCE, Programs
from icmp.namespaces import Namespace

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from wireguard.mesh import Mesh, Node

_SERVER_IP: Final = "192.0.2.254"
_SERVER: Final = f"{_SERVER_IP}:8080"

Points = dict[str, dict[str, Any]]


class Place(Namespace):
    """A namespace that somebody else made and deletes."""

    def __init__(self, name: str) -> None:
        self.name = name


class Shown:
    """The newest point of each group and peer of one node, as the server tells it."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = points

    def group(self, name: str) -> Points:
        """By peer."""
        return {p["peer_id"]: p for p in self._points if p["group"] == name}

    def tunnel(self, peer: Node) -> dict[str, Any]:
        return _data(self.group("tunnel"), peer)

    def rtt_nano(self, peer: Node) -> int:
        """0 as long as there is no point."""
        return int(_data(self.group("latency"), peer).get("rtt_nano", 0))

    def loss(self, peer: Node) -> float:
        return float(self.tunnel(peer).get("packet_loss_percent", -1))


def _data(points: Points, peer: Node) -> dict[str, Any]:
    found: dict[str, Any] = points.get(peer.namespace, {}).get("data", {})
    return found


def taken(point: dict[str, Any]) -> datetime:
    """When a point was measured."""
    return datetime.fromisoformat(point["timestamp"])


class Agents:
    """A context manager; leaving it stops every agent as an operator would."""

    def __init__(self, mesh: Mesh, directory: Path) -> None:
        self.mesh = mesh
        self.nodes = mesh.nodes
        self._switch = Place(mesh._switch)
        self._programs = Programs(directory)
        self._tokens: dict[str, str] = {}
        self._agents: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        self._switch.run("ip", "link", "set", "lo", "up")
        self._switch.run("ip", "address", "add", f"{_SERVER_IP}/24", "dev", "br0")
        try:
            self._create_nodes()
            with self._switch.inside():
                _, address = self._programs.serve(_SERVER)
            assert address == f"http://{_SERVER}"
            for node in self.nodes:
                self._agents[node.namespace] = self._start(node)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stop_agents()
        finally:
            self._kill()

    def others(self, node: Node) -> list[Node]:
        return [other for other in self.nodes if other is not node]

    def shown(self, node: Node) -> Shown:
        """What the server shows of ``node``."""
        return Shown(self._ask(node, "latest")["points"])

    def link(self, one: Node, other: Node) -> dict[str, Any]:
        """What the server makes of what both read of each other."""
        ends = {one.namespace, other.namespace}
        links = self._ask(one, "peers")["links"]
        (found,) = [link for link in links if {link["a"], link["b"]} == ends]
        return dict(found)

    def _ask(self, node: Node, what: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._tokens[node.namespace]}"}
        with self._switch.inside(), closing(HTTPConnection(_SERVER, timeout=10)) as server:
            server.request("GET", f"/v1/nodes/{node.namespace}/{what}", headers=headers)
            answer = server.getresponse()
            assert answer.status == 200, answer.read()
            return dict(json.load(answer))

    def log(self, node: Node) -> str:
        return self._programs.log_of(self._agents[node.namespace])

    def _create_nodes(self) -> None:
        # The first one alone, for it makes the registry.
        for batch in (self.nodes[:1], self.nodes[1:]):
            creating = [self._create(node) for node in batch]
            assert [process.wait(PATIENCE) for process in creating] == [0] * len(batch)
        for node in self.nodes:
            identity = json.loads((self._home(node) / "identity.json").read_text())
            self._tokens[node.namespace] = identity["auth_token"]

    def _home(self, node: Node) -> Path:
        return self._programs.directory / node.namespace

    def _create(self, node: Node) -> subprocess.Popen[str]:
        self._home(node).mkdir(mode=0o700)
        output = str(self._home(node) / "identity.json")
        options = ["--mesh-ip", node.address, "--output", output, "--data-dir", "server"]
        return self._programs.start("plexd_server", "node", "create", node.namespace, *options)

    def _start(self, node: Node) -> subprocess.Popen[str]:
        peers = [
            {"id": other.namespace, "public_key": other.public_key, "mesh_ip": other.address}
            for other in self.others(node)
        ]
        config = self._home(node) / "config.yaml"
        settings = {
            "data_dir": str(self._home(node)),
            "api": {"base_url": f"http://{_SERVER}"},
            # A batch is full, and so under way, as soon as anything was collected.
            "metrics": {"collect_interval": "5s", "report_interval": "10s", "batch_size": 1},
            "ping": {"timeout": "1s"},
            "wireguard": {"interface": node.interface},
            "peers": peers,
        }
        config.write_text(json.dumps(settings))
        with Place(node.namespace).inside():
            return self._programs.start("plexd", "run", "--config", str(config))

    def _stop_agents(self) -> None:
        for agent in self._agents.values():
            agent.send_signal(signal.SIGTERM)
        ends = {name: agent.wait(PATIENCE) for name, agent in self._agents.items()}
        assert ends == dict.fromkeys(ends, 0)
        for node in self.nodes:
            last = self.log(node).splitlines()[-1]
            assert "agent stopped" in last
            assert " undelivered=0" in last, last

    def _kill(self) -> None:
        for process in self._programs.started:
            if process.poll() is None:
                process.kill()
            with suppress(ValueError):  # whose output was read already
                process.communicate(timeout=PATIENCE)


def until(condition: Callable[[], bool], failure: Callable[[], object]) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, failure()
        time.sleep(0.1)
