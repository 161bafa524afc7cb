"""An agent behind a link that loses packets and is cut again and again (D06).

Agent and oracle share a network namespace of their own, in which the kernel's packet filter throws
away three packets in ten at random, in both directions, and all of them while the link is cut.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from faults.bench import Node
from faults.forks import Forks
from icmp.namespaces import Namespace
from support.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.numbered import Meta

__all__ = ["Lossy", "lose_packets"]

_NODE = "node-1"
_CHAIN = ("inet", "filter", "c")
_LOSE = (
    "add",
    "rule",
    *_CHAIN,
    *["numgen", "random", "mod", "10", "<", "3", "counter", "name", "lost", "drop"],
)
_CUT = ("add", "rule", *_CHAIN, "drop")
_HEAL = ("flush", "chain", *_CHAIN)
# A collection each quarter of a second; requests get as long, and the kernel sends again in 10 ms.
_HURRY = 20.0
_RETRANSMIT = ("ip", "route", "replace", "local", "127.0.0.1", "dev", "lo", "rto_min", "10ms")
_MORE = 15
_PATIENCE_SECONDS = 60.0


class Lossy(NamedTuple):
    """What became of the points of an agent over ``cuts`` of its link, and ``packets`` lost."""

    cuts: int
    packets: int
    account: Meta
    duplicates: int
    missing: int


def lose_packets(cuts: int, directory: Path) -> Lossy:
    """Let an agent run through ``cuts``, and deliver what is left when the link is whole."""
    with (
        Namespace() as network,
        network.inside(),
        Oracle() as oracle,
        Forks("faults.subject") as forks,
    ):
        network.run(*_RETRANSMIT, "table", "local")
        node = Node(_NODE, directory, oracle.url)
        network.rules("input")
        network.run("nft", "add", "counter", "inet", "filter", "lost")
        network.run("nft", *_LOSE)
        subject = node.start(forks, hurry=_HURRY)
        for _ in range(cuts):
            _until_more(lambda: len(oracle.points(_NODE)), 1)
            network.run("nft", *_CUT)
            _until_more(lambda: len(node.told()), _MORE)
            network.run("nft", *_HEAL)
            network.run("nft", *_LOSE)
        subject.send(signal.SIGTERM)
        assert subject.wait() == 0, node.log.read_text()[-2000:]
        network.run("nft", *_HEAL)
        node.drain(forks)
        assert not oracle.contradictions
        found = node.account(oracle)
        return Lossy(cuts, _lost_here(), found, oracle.duplicates(_NODE), oracle.lost(_NODE))


def _lost_here() -> int:
    """Packets that the filter of this thread's network threw away at random."""
    nft = shutil.which("nft")
    assert nft is not None, "not installed: nft"
    listed = subprocess.check_output([nft, "list", "counter", "inet", "filter", "lost"], text=True)
    return int(listed.partition("packets ")[2].split()[0])


def _until_more(count: Callable[[], int], more: int) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    enough = count() + more
    while count() < enough:
        assert time.monotonic() < give_up
        time.sleep(0.005)
