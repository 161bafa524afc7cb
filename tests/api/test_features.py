"""What a newer control plane announces is not used by this version, whatever it looks like."""

from __future__ import annotations

import json

import pytest

from plexd.api import Config, ControlPlane, Peer, Registration
from support.servers import Reply, ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_leaks")

PEER = {"id": "rome", "public_key": "A" * 43 + "=", "mesh_ip": "10.99.0.2"}
MADE = {"node_id": "n", "mesh_ip": "10.99.0.1", "node_secret_key": "k" * 32, "auth_token": "t"}
NEWER = [
    {},
    {"features": []},
    {"features": None},
    {"features": ["path", "probe_plan", "x" * 100, 5]},
    {"features": {"path": 2}},
    {"features": "path", "probe_plan": {"until": 1, "peers": ["nobody"]}, "requests": [{}]},
]


@pytest.mark.parametrize("newer", NEWER, ids=str)
async def test_features_that_are_not_known_are_ignored(newer: dict[str, object]) -> None:
    state = Reply(body=json.dumps({"peers": [PEER]} | newer).encode())
    made = Reply(body=json.dumps(MADE | {"peers": [PEER]} | newer).encode())
    async with ScriptedServer(state, made) as server, ControlPlane(Config(server.url)) as plane:
        peers = await plane.fetch_peers("n")
        registered = await plane.register("token", "key", "host", {})

    assert peers == [Peer(**PEER)]
    assert registered == Registration(**MADE, peers=[Peer(**PEER)])
    assert not any(name.lower() == "plexd-features" for name in server.requests[0].headers)
