"""kill -9 and restarts of either process: what was acknowledged is stored, once (H01, H15)."""

from __future__ import annotations

import random
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from faults.serverkills import ServerKills, kill_servers, kill_tables

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("cycles", "forked", "number"),
    [(15, True, signal.SIGKILL), (5, False, signal.SIGKILL), (8, True, signal.SIGTERM)],
    ids=["killed", "killed, the real command", "stopped"],
)
def test_ended_under_load_at_random_moments_it_loses_and_doubles_nothing(
    tmp_path: Path, cycles: int, forked: bool, number: signal.Signals
) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    check(kill_servers(cycles, tmp_path, seed, forked=forked, number=number))


def test_tables_killed_under_load_at_random_moments_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    done = kill_tables(12, tmp_path, seed)
    assert done.awake == done.kills  # the front goes on
    check(done)


def check(done: ServerKills) -> None:
    for found, ledger in zip(done.accounts, done.ledgers, strict=True):
        assert found.is_exact, found
        assert found.told > 0
        assert (ledger["gap"], ledger["evicted"]) == (0, 0)
