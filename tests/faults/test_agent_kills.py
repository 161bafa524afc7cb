"""kill -9 of the agent: nothing promised is lost, nothing arrives twice (A01, A03)."""

from __future__ import annotations

import random
import signal
import sys
from typing import TYPE_CHECKING

from faults.bench import Node
from faults.forks import Forks
from faults.kills import kill_agents
from support.oracle import ACCEPT, Answer, Oracle

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_at_random_moments_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    done = kill_agents(60, tmp_path, seed)
    assert done.account.is_exact, done
    assert done.account.told > 0
    assert done.missing == 0


def test_the_bench_finds_the_loss_of_a_spool_in_memory(tmp_path: Path) -> None:
    """Otherwise it would prove nothing."""
    with Oracle(lambda _: Answer(503)) as oracle, Forks("faults.subject") as forks:
        node = Node("node-1", tmp_path, oracle.url, settings={"directory": ""})
        subject = node.start(forks)
        oracle.wait_until(lambda: oracle.attempts > 2)
        assert subject.kill() == -signal.SIGKILL
        oracle.answers = lambda _: ACCEPT
        node.drain(forks)
        assert node.account(oracle).lost


def test_killed_between_a_commit_and_its_answer_it_sends_again_without_effect(
    tmp_path: Path,
) -> None:
    with Oracle() as oracle, Forks("faults.subject") as forks:
        node = Node("node-1", tmp_path, oracle.url)
        for _ in range(5):
            oracle.answers = lambda _: Answer(delay=60)  # taken in, and never said so
            subject = node.start(forks)
            _wait_for_one_more(node, oracle)
            assert subject.kill() == -signal.SIGKILL
            oracle.answers = lambda _: ACCEPT
            node.drain(forks)
        found = node.account(oracle)
        assert found.is_exact, found
        assert oracle.repeated(node.name) >= 5


def _wait_for_one_more(node: Node, oracle: Oracle) -> None:
    taken = len(oracle.points(node.name))
    oracle.wait_until(lambda: len(oracle.points(node.name)) > taken)
