from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.api import MetricBatch, check_points, decode_batch
from plexd_server.mesh.live import LiveMesh, Roster
from plexd_server.mesh.moment import Moment
from plexd_server.registry import Node
from plexd_server.simulate.readings import read_node
from plexd_server.simulate.world import World
from plexd_server.store import Report
from server.running import Client, command, create_node, served
from support.answers import fleet_at

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from plexd_server.mesh.links import Link

START = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)
WORLD = World(12, 11)
NAMES = [WORLD.name(node) for node in range(12)]


@pytest.mark.slow
@given(st.integers(1, 60), st.integers(0, 70))
def test_a_peer_of_a_node_has_that_node_as_a_peer(nodes: int, peers: int) -> None:
    world = World(nodes, peers)

    for node in range(nodes):
        found = world.peers(node)
        assert node not in found
        assert len(found) <= max(0, min(peers, nodes - 1))
        assert all(node in world.peers(peer) for peer in found)


def test_in_a_full_mesh_every_node_is_a_peer_of_every_other_and_names_are_unique() -> None:
    assert all(len(WORLD.peers(node)) == 11 for node in range(12))
    assert len({World(10_000, 2).name(node) for node in range(10_000)}) == 10_000


@given(st.integers(0, 11), st.floats(-7200, 7200))
def test_simulated_points_are_points_that_an_agent_could_report(node: int, at: float) -> None:
    points = read_node(WORLD, node, NAMES, START, at)

    check_points(points)
    assert len(decode_batch(MetricBatch(points).to_json())) == len(points)


@given(st.integers(0, 11), st.integers(0, 11), st.floats(-7200, 7200), st.floats(0.1, 900))
def test_counters_never_go_back(here: int, there: int, at: float, later: float) -> None:
    if here == there:
        return
    first, then = WORLD.path(here, there, at), WORLD.path(here, there, at + later)

    assert first.alive <= then.alive + 1e-6
    assert first.passed - first.alive <= then.passed - then.alive + 1e-6


@pytest.fixture(scope="module")
def links() -> dict[str, Link]:
    """The links in the live mesh after the ten minutes up to the start."""
    live = LiveMesh(max_waiting=1_000_000)
    for step in range(40):
        at = 15.0 * (step - 40)
        for node in range(12):
            if not WORLD.is_silent(node, at):
                points = read_node(WORLD, node, NAMES, START, at)
                live.observe(
                    Report(NAMES[node], points, points[0].timestamp),
                    Moment(START.timestamp() + at, at),
                )
    return {link.id: link for link in live.snapshot(Moment(START.timestamp(), 0.0)).links}


def test_a_silent_node_is_silent_as_soon_as_its_past_was_reported() -> None:
    live = LiveMesh(max_waiting=1_000_000)
    live.update_roster(Roster.of(Node(name, "", START) for name in NAMES))
    now = Moment(START.timestamp(), 0.0)
    for node in range(12):
        past = [-30.0 * step for step in range(120, 0, -1)]
        told = [at for at in past if not WORLD.is_silent(node, at)]
        points = [point for at in told for point in read_node(WORLD, node, NAMES, START, at)]
        live.observe(Report(NAMES[node], points, START), now)
    answer = fleet_at(live, now)

    silent = [node.node_id for node in answer.nodes if node.status == "silent"]
    assert silent == ["sim-denver"]
    assert "its newest reading is 10 min old" in {alert.text for alert in answer.alerts}
    assert not any("denver" in alert.link_id for alert in answer.alerts)


@given(st.integers(0, 11), st.integers(0, 11), st.floats(-7200, 7200))
def test_no_peer_that_answers_has_lost_all_its_pings(here: int, there: int, at: float) -> None:
    if here != there:
        path = WORLD.path(here, there, at)
        assert not (path.answered and path.loss_percent == 100)


@pytest.mark.parametrize(
    ("link", "state"),
    [
        ("sim-boston~sim-mumbai", "down"),
        ("sim-paris~sim-sydney", "never"),
        ("sim-denver~sim-oslo", "down"),
        ("sim-berlin~sim-nairobi", "up"),
        ("sim-berlin~sim-oslo", "up"),
        ("sim-lima~sim-oslo", "down"),
    ],
)
def test_the_faults_of_the_world_are_found(links: dict[str, Link], link: str, state: str) -> None:
    assert links[link].state == state, links[link].reason


def test_asymmetric_loss_and_an_end_that_is_not_heard_are_found(links: dict[str, Link]) -> None:
    asymmetry = links["sim-berlin~sim-tokyo"].loss_asymmetry
    assert asymmetry is not None
    assert asymmetry <= -10
    assert links["sim-lima~sim-oslo"].silence.startswith("sim-lima hears sim-oslo")


def test_no_other_link_has_a_fault(links: dict[str, Link]) -> None:
    bad = {link for link, found in links.items() if found.state != "up" and "denver" not in link}

    assert bad <= {
        "sim-boston~sim-mumbai",
        "sim-paris~sim-sydney",
        "sim-lima~sim-oslo",
        "sim-madrid~sim-tokyo",
    }


@pytest.mark.slow
async def test_the_command_registers_nodes_reports_the_past_and_sums_up(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d") as server:
        line = ["simulate", "--server", server.url, "--data-dir", tmp_path / "d", "--nodes", 3]
        line += ["--peers", 2, "--past", "10m", "--for", "1s"]
        first = command(*line)
        again = command(*line)
        operator = Client(session, server.url, server.operator_token)
        async with asyncio.timeout(10):
            while len((fleet := (await operator.get("/v1/fleet")).json)["nodes"]) < 3:
                pass

    assert "simulating 3 nodes with 2 peers each" in first.stdout
    assert "the past is told: 360 points" in first.stdout
    assert "0 retries" in again.stdout
    assert [node["node_id"] for node in fleet["nodes"]] == ["sim-berlin", "sim-oslo", "sim-tokyo"]
    assert all(node["simulated"] for node in fleet["nodes"])


@pytest.mark.slow
def test_nodes_enrol_with_a_token_and_are_marked_as_simulated(tmp_path: Path) -> None:
    with served(tmp_path / "d") as server:
        made = command("token", "create", "--uses", 2, "--data-dir", tmp_path / "d")
        token = tmp_path / "token"
        token.write_text(made.stdout)
        line = ["simulate", "--server", server.url, "--token-file", token, "--nodes", 2]
        command(*line, "--peers", 1, "--for", "2s")
        refused = command(*line, "--for", "1s", check=False)
        shown = command("node", "show", "sim-tokyo", "--json", "--data-dir", tmp_path / "d")

    assert json.loads(shown.stdout)["metadata"] == {"simulated": "yes"}
    assert refused.returncode == 1
    assert refused.stderr.startswith("plexd-server: sim-berlin cannot enrol: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--nodes", 0], "--nodes 0 is not between 1 and 60000"),
        (["--peers", -1], "--peers -1 is not between 0 and 60000"),
        (["--rate", 0], "--rate must be above 0"),
        (["--past", "x"], "--past 'x' is no duration"),
        (["--for", "1"], "--for '1' is no duration"),
        (["--server", "nowhere"], "--server 'nowhere' is no URL"),
        (["--token-file", "/none"], "--token-file /none cannot be read: No such file"),
        (["--connections", 0], "--connections must be above 0"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, options: list[object], complaint: str) -> None:
    done = command("simulate", "--data-dir", tmp_path / "d", *options, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"plexd-server: {complaint}")


@pytest.mark.slow
def test_a_server_that_does_not_run_is_waited_for(tmp_path: Path) -> None:
    create_node(tmp_path)
    line = ["simulate", "--data-dir", tmp_path, "--server", "http://127.0.0.1:1"]
    done = command(*line, "--nodes", 1, "--for", "2s")

    assert "0 points in 0 batches accepted" in done.stdout
    assert " 0 retries" not in done.stdout
