"""What an agent sees of a real mesh: five nodes, each a wireguard-go in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from wireguard.mesh import Mesh, Node, needs_a_mesh, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = needs_a_mesh

NODES = 5
Peers = dict[str, dict[str, Any]]


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh(NODES) as made:
        made.shake_hands()
        yield made


def collect(
    node: Node, others: Sequence[Node], folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """``plexd collect`` on ``node``, which is told who ``others`` are."""
    peers = [
        {"id": other.namespace, "public_key": other.public_key, "mesh_ip": other.address}
        for other in others
    ]
    config = folder / f"{node.namespace}.yaml"
    settings = {"wireguard": {"interface": node.interface}, "peers": peers, "data_dir": ""}
    config.write_text(json.dumps(settings))
    plexd = [sys.executable, "-m", "plexd", "collect", "--config", str(config), *options]
    return subprocess.run(
        ["ip", "netns", "exec", node.namespace, *plexd],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )


def seen(node: Node, others: Sequence[Node], folder: Path) -> tuple[Peers, Peers]:
    """The tunnels and latencies ``node`` measures, by peer."""
    points = json.loads(collect(node, others, folder, "--json").stdout)
    tunnels, latencies = (
        {p["peer_id"]: p["data"] for p in points if p["group"] == group}
        for group in ("tunnel", "latency")
    )
    return tunnels, latencies


def test_every_node_sees_every_other(mesh: Mesh, tmp_path: Path) -> None:
    for node in mesh.nodes:
        others = [other for other in mesh.nodes if other is not node]
        tunnels, latencies = seen(node, others, tmp_path)
        assert set(tunnels) == set(latencies) == {other.namespace for other in others}
        for peer in tunnels:
            assert 0 < latencies[peer]["rtt_nano"] < 2_000_000_000
            assert tunnels[peer]["handshake_succeeded"]
            assert not tunnels[peer]["handshake_stale"]
            assert tunnels[peer]["rx_bytes"] > 0
            assert tunnels[peer]["packet_loss_percent"] == -1  # one ping says nothing
            moment = datetime.fromisoformat(tunnels[peer]["last_handshake_time"])
            assert timedelta() <= datetime.now(UTC) - moment < timedelta(minutes=3)


def test_a_person_sees_a_line_for_each_peer(mesh: Mesh, tmp_path: Path) -> None:
    node, *others = mesh.nodes
    table = collect(node, others, tmp_path).stdout.splitlines()
    head = next(line for line in table if "PEER" in line)
    assert head.split() == ["PEER", "ADDRESS", "HANDSHAKE", "RECEIVED", "SENT", "RTT", "LOSS"]
    for other in others:
        (line,) = [line for line in table if line.strip().startswith(f"{other.namespace} ")]
        assert other.address in line
        assert " ago " in line
        assert line.endswith(" ?")


def test_a_cut_link_shows_at_that_peer_alone(mesh: Mesh, tmp_path: Path) -> None:
    node, victim, *others = mesh.nodes
    nft = ("ip", "netns", "exec", node.namespace, "nft")
    run(*nft, "add table ip cut")
    run(*nft, "add chain ip cut out { type filter hook output priority 0 ; }")
    run(*nft, f"add rule ip cut out ip daddr {victim.underlay} drop")
    _, latencies = seen(node, [victim, *others], tmp_path)
    assert latencies[victim.namespace]["rtt_nano"] == -1
    assert all(latencies[other.namespace]["rtt_nano"] > 0 for other in others)


def test_a_killed_daemon_is_told_with_its_reason_and_seen_by_the_others(
    mesh: Mesh, tmp_path: Path
) -> None:
    node, victim, *others = mesh.nodes
    victim.kill()
    answer = collect(victim, [node, *others], tmp_path, "--json")
    assert "plexd: tunnel: " in answer.stderr
    assert {point["group"] for point in json.loads(answer.stdout)} >= {"system", "agent"}
    _, latencies = seen(node, [victim, *others], tmp_path)
    assert latencies[victim.namespace]["rtt_nano"] == -1


def test_a_removed_peer_has_no_tunnel_any_more(mesh: Mesh, tmp_path: Path) -> None:
    node, victim, *others = mesh.nodes
    run("wg", "set", node.interface, "peer", victim.public_key, "remove")
    tunnels, latencies = seen(node, [victim, *others], tmp_path)
    assert victim.namespace not in tunnels
    assert len(tunnels) == NODES - 2
    assert latencies[victim.namespace]["rtt_nano"] == -1


def test_a_stranger_on_the_interface_is_shown_by_its_key(mesh: Mesh, tmp_path: Path) -> None:
    node, stranger, *others = mesh.nodes
    tunnels, latencies = seen(node, others, tmp_path)
    assert stranger.public_key in tunnels
    assert stranger.public_key not in latencies
