"""Packets are lost, the link is cut, or takes small ones only: all arrives, once (D06, D12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.lossy import lose_packets
from faults.numbered import account, point_of
from icmp.namespaces import Namespace
from plexd import api
from support.oracle import Oracle
from support.points import EPOCH

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("ip", "nft"), pytest.mark.timeout(180)]


def test_on_a_link_that_loses_packets_and_is_cut_everything_arrives_once(tmp_path: Path) -> None:
    done = lose_packets(3, tmp_path)
    assert done.account.is_exact, done
    assert done.account.told > 0
    assert done.missing == 0
    assert done.packets > 0


async def test_a_link_of_small_packets_carries_a_large_report() -> None:
    """The least that any network of IPv4 takes is 576 bytes."""
    points = [point_of(number) for number in range(3000)]
    batch = api.MetricBatch(points, name=api.BatchName(EPOCH, 1, len(points)))
    with Namespace() as network, network.inside(), Oracle() as oracle:
        network.run("ip", "link", "set", "lo", "mtu", "576")
        async with api.ControlPlane(api.Config(oracle.url)) as plane:
            await plane.report_metrics("node-1", batch)
        assert account(range(len(points)), oracle.points("node-1")).is_exact
