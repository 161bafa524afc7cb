"""kill -9 of the agent at random moments, over and over on one spool (A01, A03)."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from faults.bench import Node
from faults.forks import Forks
from support.oracle import ACCEPT, Answer, Oracle

if TYPE_CHECKING:
    from pathlib import Path

    from faults.numbered import Meta
    from support.oracle import Report

__all__ = ["Kills", "kill_agents"]

_LEAST_SECONDS, _MOST_SECONDS = 0.005, 0.080


class Kills(NamedTuple):
    """What the kills came to. ``duplicates`` are reports that had been taken in before a kill."""

    kills: int
    account: Meta
    duplicates: int
    missing: int


def unreliable(seed: int) -> Oracle:
    """A receiver that takes a tenth of all reports in without ever saying so, or is too busy."""
    dice = random.Random(seed)

    def answer(_: Report) -> Answer:
        luck = dice.random()
        if luck < 0.10:
            return Answer(cut_at=dice.randrange(0, 40))
        if luck < 0.15:
            return Answer(503, retry_after="1")
        return Answer(delay=0.02) if luck < 0.25 else ACCEPT

    return Oracle(answer)


def kill_agents(cycles: int, directory: Path, seed: int) -> Kills:
    """Start the subject and kill it, ``cycles`` times; then let it deliver what is left."""
    dice = random.Random(seed)
    with unreliable(seed) as oracle, Forks("faults.subject") as forks:
        node = Node("node-1", directory, oracle.url)
        for _ in range(cycles):
            subject = node.start(forks)
            time.sleep(dice.uniform(_LEAST_SECONDS, _MOST_SECONDS))
            assert subject.kill() == -signal.SIGKILL, node.log.read_text()[-2000:]
        node.drain(forks)
        assert not oracle.contradictions, oracle.contradictions[:3]
        return Kills(
            cycles,
            node.account(oracle),
            oracle.duplicates(node.name),
            oracle.lost(node.name),
        )
