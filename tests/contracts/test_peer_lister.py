"""What every `PeerLister` promises, the real one and the one that is shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plexd.api import Peer
from plexd.metrics import PeerLister
from plexd.metrics.testing import ManualPeers
from plexd.wireguard import PeerIndex
from wireguard.messages import key

if TYPE_CHECKING:
    from collections.abc import Callable


def _index(*peer_ids: str) -> PeerIndex:
    return PeerIndex(
        Peer(peer_id, key(i), f"10.0.0.{i}") for i, peer_id in enumerate(peer_ids, start=1)
    )


LISTERS: list[Callable[..., PeerLister]] = [_index, ManualPeers]


@pytest.fixture(params=LISTERS, ids=["PeerIndex", "ManualPeers"])
def make(request: pytest.FixtureRequest) -> Callable[..., PeerLister]:
    made: Callable[..., PeerLister] = request.param
    return made


def test_it_is_recognised_as_a_peer_lister(make: Callable[..., PeerLister]) -> None:
    assert isinstance(make(), PeerLister)


def test_an_empty_mesh_is_an_empty_list(make: Callable[..., PeerLister]) -> None:
    assert list(make().peer_ids()) == []


def test_peers_keep_their_order(make: Callable[..., PeerLister]) -> None:
    lister = make("carol", "alice", "bob")
    assert list(lister.peer_ids()) == ["carol", "alice", "bob"]
    assert list(lister.peer_ids()) == ["carol", "alice", "bob"]
