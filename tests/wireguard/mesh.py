"""Nodes in network namespaces of their own, joined by veth pairs, each with a real wireguard-go.

Everything made has a name with this process's number in it and goes when the mesh is closed. The
daemons' sockets lie in ``/var/run/wireguard``, which namespaces share.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.processes import ending_with_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

SOCKETS = Path("/var/run/wireguard")
PROGRAMS = ("ip", "ping", "wg", "wireguard-go")


def missing() -> str:
    """Why no mesh can be built here; empty if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if lacking := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"not installed: {', '.join(lacking)} (apt install wireguard-go wireguard-tools)"
    return "" if Path("/dev/net/tun").exists() else "no /dev/net/tun"


# In CI a missing program is a failure, not a skipped test.
needs_a_mesh = [
    pytest.mark.root,
    pytest.mark.skipif("CI" not in os.environ and bool(missing()), reason=missing() or "CI"),
]


def run(*command: str, given: str = "") -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


class Node:
    """One namespace and the daemon in it, which may be killed and started again."""

    def __init__(self, number: int, label: str = "n") -> None:
        self.interface = f"px{os.getpid() % 10**6}{label}{number}"
        self.namespace = self.interface
        self.underlay = f"192.0.2.{number}"
        self.address = f"10.99.0.{number}"
        self._private_key = run("wg", "genkey")
        self.public_key = run("wg", "pubkey", given=self._private_key)
        self._daemon: subprocess.Popen[str] | None = None
        run("ip", "netns", "add", self.namespace)

    def start(self, peers: Iterable[str] = ()) -> None:
        """Run the daemon with ``peers``, sections of a `wg setconf` file."""
        command = ["ip", "netns", "exec", self.namespace, "wireguard-go", "-f", self.interface]
        self._daemon = subprocess.Popen(
            ending_with_us(*command),
            env={**os.environ, "LOG_LEVEL": "verbose"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._log = _Log(self._daemon)
        self._log.wait_for("UAPI listener started")
        self.configure(peers)
        run(
            "ip",
            "-n",
            self.namespace,
            "address",
            "add",
            f"{self.address}/24",
            "dev",
            self.interface,
        )
        run("ip", "-n", self.namespace, "link", "set", self.interface, "up")

    def configure(self, peers: Iterable[str]) -> None:
        head = f"[Interface]\nPrivateKey={self._private_key}\nListenPort=51820\n"
        run("wg", "setconf", self.interface, "/dev/stdin", given="\n".join([head, *peers]))

    def section(self) -> str:
        """This node as a peer of others."""
        endpoint = f"{self.underlay}:51820"
        return section(self.public_key, f"{self.address}/32", endpoint)

    def shown(self) -> list[list[str]]:
        """The peers as `wg show dump` prints them, fields apart, by key."""
        lines = run("wg", "show", self.interface, "dump").splitlines()[1:]
        return sorted(line.split("\t") for line in lines)

    def stop(self) -> None:
        """Return once the daemon has stopped; its threads run for a moment after the signal."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._daemon.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the daemon at once; its socket file stays, as with any killed daemon."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(timeout=30)
            self._log.close()

    def close(self) -> None:
        self.kill()
        (SOCKETS / f"{self.interface}.sock").unlink(missing_ok=True)
        run("ip", "netns", "delete", self.namespace)


def section(public_key: str, allowed: str, endpoint: str) -> str:
    return f"[Peer]\nPublicKey={public_key}\nAllowedIPs={allowed}\nEndpoint={endpoint}\n"


class _Log:
    """Reads all output of a daemon, for a full pipe would stop it."""

    def __init__(self, daemon: subprocess.Popen[str]) -> None:
        self._daemon = daemon
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._daemon.stdout is not None
        with self._daemon.stdout as output:
            for line in output:
                self._said.put(line)
        self._said.put("")

    def wait_for(self, words: str) -> None:
        while words not in (line := self._said.get(timeout=30)):
            assert line, "the daemon ended"

    def close(self) -> None:
        self._thread.join(timeout=30)


class Mesh:
    """``size`` nodes that all know each other, on one switch."""

    def __init__(self, size: int) -> None:
        self._switch = f"px{os.getpid() % 10**6}sw"
        self.nodes: list[Node] = []
        try:
            run("ip", "netns", "add", self._switch)
            run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
            run("ip", "-n", self._switch, "link", "set", "br0", "up")
            for number in range(1, size + 1):
                self.nodes.append(Node(number))
                self._plug_in(self.nodes[-1], f"port{number}")
            for node in self.nodes:
                node.start(self.sections(node))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def sections(self, node: Node) -> Sequence[str]:
        return [other.section() for other in self.nodes if other is not node]

    def shake_hands(self) -> None:
        """One ping along every tunnel, all at once."""
        pairs = [(a, b) for i, a in enumerate(self.nodes) for b in self.nodes[i + 1 :]]
        _ping(pairs)

    def greet(self, node: Node) -> None:
        """One ping from ``node`` to every other, which makes them forget older sessions with it."""
        _ping([(node, other) for other in self.nodes if other is not node])

    def _plug_in(self, node: Node, port: str) -> None:
        switch = ("ip", "-n", self._switch)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", node.namespace)
        run(*switch, "link", "add", port, *pair)
        run(*switch, "link", "set", port, "master", "br0", "up")
        inside = ("ip", "-n", node.namespace)
        run(*inside, "address", "add", f"{node.underlay}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")

    def close(self) -> None:
        for node in self.nodes:
            with suppress(AssertionError):
                node.close()
        with suppress(AssertionError):
            run("ip", "netns", "delete", self._switch)


def _ping(pairs: Iterable[tuple[Node, Node]]) -> None:
    pings = [
        subprocess.Popen(
            ["ip", "netns", "exec", a.namespace, "ping", "-q", "-c1", "-w10", b.address],
            stdout=subprocess.DEVNULL,
        )
        for a, b in pairs
    ]
    assert [ping.wait(timeout=30) for ping in pings] == [0] * len(pings)
