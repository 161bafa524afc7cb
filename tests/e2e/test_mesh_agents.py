"""What a server is told of a real mesh by the agents that run on its five nodes.

All tests share one mesh, and each has a fault of its own at a place of its own, so that they may
come in any order.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from e2e.mesh_agents import Agents, taken, until
from wireguard.mesh import Mesh, needs_a_mesh, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wireguard.mesh import Node

pytestmark = needs_a_mesh

NODES = 5
PACKETS, PACKET_BYTES = 50, 1000


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """Every node was heard of once; at the end each agent stops by itself with nothing left."""
    with Mesh(NODES) as mesh:
        mesh.shake_hands()
        with Agents(mesh, tmp_path_factory.mktemp("agents")) as running:
            for node in mesh.nodes:
                _wait_until_whole(running, node)
            yield running


def _wait_until_whole(agents: Agents, node: Node) -> None:
    expected = {other.namespace for other in agents.others(node)}

    def whole() -> bool:
        shown = agents.shown(node)
        groups = {name: set(shown.group(name)) for name in ("tunnel", "latency")}
        return groups == {"tunnel": expected, "latency": expected}

    until(whole, lambda: (node.namespace, agents.log(node)))


def test_handshakes_are_as_old_as_wg_says_and_counters_grow_with_traffic(agents: Agents) -> None:
    sender, receiver = agents.nodes[4], agents.nodes[2]
    before = agents.shown(receiver).tunnel(sender)
    place = ("ip", "netns", "exec", sender.namespace)
    options = ("-i", "0.002", "-c", str(PACKETS), "-s", str(PACKET_BYTES))
    run(*place, "ping", "-q", *options, receiver.address)
    more = PACKETS * PACKET_BYTES

    def grown() -> bool:
        after = agents.shown(receiver).tunnel(sender)
        return all(after[name] >= before[name] + more for name in ("rx_bytes", "tx_bytes"))

    until(grown, lambda: (before, agents.shown(receiver).tunnel(sender)))
    for node in (sender, receiver):
        _wait_until_as_wg_says(agents, node)


def _wait_until_as_wg_says(agents: Agents, node: Node) -> None:
    """A tunnel may shake hands between two collections; the next one shows it."""
    until(
        lambda: _handshakes(agents, node) == _handshakes_of_wg(agents, node),
        lambda: (_handshakes(agents, node), node.shown()),
    )


def _handshakes(agents: Agents, node: Node) -> dict[str, int]:
    """When each tunnel of ``node`` shook hands, in seconds since 1970, as the server shows it."""
    moments = {}
    for peer, point in agents.shown(node).group("tunnel").items():
        assert point["data"]["handshake_succeeded"]
        assert not point["data"]["handshake_stale"]
        moment = datetime.fromisoformat(point["data"]["last_handshake_time"])
        moments[peer] = int(moment.timestamp())
    return moments


def _handshakes_of_wg(agents: Agents, node: Node) -> dict[str, int]:
    names = {other.public_key: other.namespace for other in agents.others(node)}
    return {names[fields[0]]: int(fields[4]) for fields in node.shown()}


def test_a_cut_link_shows_on_both_ends_and_at_that_peer_alone(agents: Agents) -> None:
    ends = agents.nodes[0], agents.nodes[1]
    pairs = [(ends[0], ends[1]), (ends[1], ends[0])]
    nft = ("ip", "netns", "exec", ends[0].namespace, "nft")
    run(*nft, "add table ip cut")
    run(*nft, "add chain ip cut out { type filter hook output priority 0 ; }")
    run(*nft, f"add rule ip cut out ip daddr {ends[1].underlay} drop")

    def cut() -> bool:
        shown = [(agents.shown(here), there) for here, there in pairs]
        return all(one.rtt_nano(there) == -1 and one.loss(there) > 0 for one, there in shown)

    until(cut, lambda: [agents.shown(here).group("latency") for here, _ in pairs])
    # Its keys are good for minutes, and one end hears the other.
    until(lambda: agents.link(*ends)["state"] == "one-way", lambda: agents.link(*ends))
    healthy = agents.nodes[4]
    for here, _ in pairs:
        assert agents.shown(here).rtt_nano(healthy) > 0
        assert agents.shown(here).loss(healthy) == 0


def test_a_killed_daemon_is_no_tunnel_points_and_a_clear_line_until_it_returns(
    agents: Agents,
) -> None:
    node = agents.nodes[2]
    node.kill()
    killed = datetime.now(UTC)

    def noticed() -> bool:
        # What is collected later is delivered later: no tunnel point of that cycle is to come.
        latencies = agents.shown(node).group("latency").values()
        return all(p["data"]["rtt_nano"] == -1 and taken(p) > killed for p in latencies)

    try:
        until(noticed, lambda: agents.shown(node).group("latency"))
        until(lambda: "TunnelCollector" in agents.log(node), lambda: agents.log(node))
        assert all(taken(p) < killed for p in agents.shown(node).group("tunnel").values())
        (line,) = [line for line in agents.log(node).splitlines() if "TunnelCollector" in line]
        assert "collector failed" in line
        assert f"{node.interface}: kernel: " in line
        assert f"{node.interface}.sock: Connection refused" in line
    finally:
        node.start(agents.mesh.sections(node))
    agents.mesh.greet(node)  # or the first cycle would still find tunnels without a handshake
    returned = datetime.now(UTC)

    def resumed() -> bool:
        shown = agents.shown(node)
        tunnels = shown.group("tunnel").values()
        return all(
            taken(p) > returned and p["data"]["handshake_succeeded"] for p in tunnels
        ) and all(shown.rtt_nano(other) > 0 for other in agents.others(node))

    until(resumed, lambda: agents.shown(node).group("tunnel"))


def test_a_removed_peer_has_no_points_any_more(agents: Agents) -> None:
    node, removed = agents.nodes[3], agents.nodes[4]
    run("wg", "set", node.interface, "peer", removed.public_key, "remove")
    moment = datetime.now(UTC)
    rest = [other.namespace for other in agents.others(node) if other is not removed]

    def gone() -> bool:
        shown = agents.shown(node)
        tunnels = shown.group("tunnel")
        return shown.rtt_nano(removed) == -1 and all(taken(tunnels[name]) > moment for name in rest)

    until(gone, lambda: agents.shown(node).group("tunnel"))
    assert taken(agents.shown(node).group("tunnel")[removed.namespace]) < moment
    assert "peers missing on the interface" in agents.log(node)
