"""A program that is root and still may not open raw sockets, as services and containers are."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from icmp.conftest import Pair

pytestmark = list(ROOT)

FAR = "10.77.0.2"
WITHOUT_RAW_SOCKETS = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="


def collect(folder: Path) -> tuple[list[int], str]:
    """Return the round trips and the log of ``plexd collect`` without the right to raw sockets."""
    config = folder / "config.yaml"
    peers = [{"id": "far", "public_key": KEY, "mesh_ip": FAR}]
    settings = {
        "data_dir": "",
        "wireguard": {"interface": "none"},
        "peers": peers,
    }
    config.write_text(json.dumps(settings))
    plexd = (sys.executable, "-m", "plexd", "collect", "--json", "--config", str(config))
    done = subprocess.run(
        [*WITHOUT_RAW_SOCKETS, *plexd], capture_output=True, text=True, check=True, timeout=40
    )
    points = json.loads(done.stdout)
    return [p["data"]["rtt_nano"] for p in points if p["group"] == "latency"], done.stderr


@pytest.mark.slow
def test_without_raw_sockets_datagram_sockets_do(pair: Pair, tmp_path: Path) -> None:
    pair.near.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    (rtt_nano,), _ = collect(tmp_path)
    assert rtt_nano > 0


def test_without_either_every_peer_is_a_failure_with_what_to_do(pair: Pair, tmp_path: Path) -> None:
    pair.near.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0")
    (rtt_nano,), log = collect(tmp_path)
    assert rtt_nano == -1
    assert "no permission to open a socket" in log
    assert "ping_group_range" in log
    assert "cap_net_raw" in log
