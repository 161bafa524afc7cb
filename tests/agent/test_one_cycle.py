"""One cycle outside of a running agent: what is collected, from whom, and what failed."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from msgspec.structs import replace as replace_struct

from plexd import api, metrics
from plexd.agent import app, one_cycle
from plexd.agent.cli.collect import collected_table
from plexd.agent.config.settings import Settings, SystemSettings, WireGuardSettings
from plexd.agent.identity import Identity
from plexd.icmp import PingError
from plexd.metrics.testing import ManualPeers, ScriptedPinger
from support.servers import Reply, ScriptedServer

IDENTITY = Identity("node-1", "10.99.0.1", "0123456789abcdef" * 2, "node-token")
# A node without a mesh: this machine's tunnels are tested elsewhere.
ALONE = Settings(data_dir=None, wireguard=WireGuardSettings(interface=""))


def in_a_mesh(url: str) -> Settings:
    wireguard = WireGuardSettings(interface="none0")
    return replace(ALONE, api=api.Config(base_url=url), wireguard=wireguard)


async def test_one_cycle_has_points_failures_and_times() -> None:
    cycle = await one_cycle.collect_once(ALONE)
    assert {point.group for point in cycle.points} == {"system", "agent"}
    assert cycle.failures == []
    assert cycle.elapsed["system"] >= 0.1


async def test_a_source_that_fails_is_named_and_the_others_still_count() -> None:
    settings = replace(ALONE, system=SystemSettings(mount_point="/no/such/place"))
    cycle = await one_cycle.collect_once(settings)
    assert [point.group for point in cycle.points] == ["agent"]
    ((group, reason),) = cycle.failures
    assert group == "system"
    assert "/no/such/place" in reason


async def test_peers_that_are_configured_are_pinged_and_their_tunnels_looked_for() -> None:
    peers = (api.Peer("self", "A" * 43 + "=", "127.0.0.1"),)
    settings = Settings(data_dir=None, peers=peers, wireguard=WireGuardSettings(interface="none0"))
    cycle = await one_cycle.collect_once(settings)
    assert cycle.addresses == {"self": "127.0.0.1"}
    (latency,) = [point for point in cycle.points if point.group == "latency"]
    assert isinstance(latency.data, api.LatencyResult)
    assert latency.data.peer_id == "self"
    assert [group for group, _ in cycle.failures] == ["tunnel"]
    assert not await app.has_tunnels(settings)


async def test_the_control_plane_is_asked_for_the_peers_of_one_cycle() -> None:
    peers = [
        {"id": "fetched", "public_key": "A" * 43 + "=", "mesh_ip": "10.99.0.2"},
        {"id": "new", "public_key": "B" * 43 + "=", "mesh_ip": ""},
    ]
    answer = Reply(body=msgspec.json.encode({"peers": peers}))
    async with ScriptedServer(answer) as plane:
        settings = in_a_mesh(plane.url)
        tunnels = app.build_tunnels(settings)
        assert tunnels is not None
        left_out = await one_cycle._refresh_peers(settings, IDENTITY, tunnels)

    assert tunnels.addresses() == {"fetched": "10.99.0.2"}  # nobody is to be pinged by a test
    assert left_out == "peer 'new': mesh_ip \"\" is no address"


async def test_peers_that_are_not_pinged_are_named() -> None:
    peer = {"id": "evil", "public_key": "A" * 43 + "=", "mesh_ip": "127.0.0.1"}
    async with ScriptedServer(Reply(body=msgspec.json.encode({"peers": [peer]}))) as plane:
        cycle = await one_cycle.collect_once(in_a_mesh(plane.url), IDENTITY)
    assert cycle.addresses == {}
    (line,) = cycle.unanswered
    assert line.startswith("peers left out: peer 'evil': mesh_ip \"127.0.0.1\" cannot be that of")


async def test_without_an_answer_the_peers_of_the_enrolment_are_pinged() -> None:
    known = replace_struct(IDENTITY, peers=(api.Peer("known", "A" * 43 + "=", "127.0.0.1"),))
    known = replace_struct(known, peers=(*known.peers, api.Peer("twice", "A" * 43 + "=", "::1")))
    settings = in_a_mesh("http://127.0.0.1:1")

    assert (await one_cycle.collect_once(settings, known)).addresses == {"known": "127.0.0.1"}


async def test_each_reason_why_pings_failed_is_printed_once_with_its_peers() -> None:
    pinger = ScriptedPinger({peer: PingError(peer, "no route") for peer in "EIM"})
    collector = metrics.LatencyCollector(pinger, ManualPeers("E", "I", "self", "M"))
    points = [point async for point in collector.collect()]
    (line,) = one_cycle._unanswered(collector)
    assert line == "no round trip to 3 peers: no route"
    assert line in " ".join(collected_table(points, [], {}, {}, [line]).split())
