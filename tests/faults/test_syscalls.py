"""A fault at calls of the kernel in a whole cycle, and a slow disk (A02, C02, C03, C05, C11)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from faults.apart import needs
from faults.bench import Node
from faults.forks import Forks
from faults.strace import Fault, injected
from faults.sweep import KILL, sweep, sweep_lasting, sweep_recovery
from support.oracle import Oracle

pytestmark = [*needs("strace"), pytest.mark.timeout(120)]

# Each run begins at another place, so that in time all places had their turn.
_FIRST = random.randrange(1, 8)


@pytest.mark.parametrize(
    "call", ["pwrite64", "fdatasync,fsync", "ftruncate,unlink,openat", "write"]
)
def test_killed_at_a_call_it_loses_and_doubles_nothing(tmp_path: Path, call: str) -> None:
    done = sweep(call, KILL, tmp_path, first=_FIRST, step=8)
    assert not done.wrong


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
def test_killed_while_it_reports_it_loses_and_doubles_nothing(tmp_path: Path, call: str) -> None:
    done = sweep(call, KILL, tmp_path, step=2, in_main=True)
    assert done.positions > 0
    assert not done.wrong


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync,fsync", "pread64"])
def test_killed_at_a_call_of_its_recovery_it_loses_and_doubles_nothing(
    tmp_path: Path, call: str
) -> None:
    done = sweep_recovery(call, tmp_path, first=_FIRST, step=12)
    assert not done.wrong


@pytest.mark.parametrize(
    ("call", "effect"),
    [
        ("pwrite64", "error=ENOSPC"),
        ("pwrite64", "error=EIO"),
        ("pwrite64", "error=EINTR"),
        ("pwrite64", "retval=0"),
        ("fdatasync,fsync", "error=EIO"),
        ("pread64", "error=EIO"),
    ],
)
def test_a_call_that_fails_once_costs_nothing(tmp_path: Path, call: str, effect: str) -> None:
    done = sweep(call, effect, tmp_path, first=_FIRST, step=16)
    assert not done.wrong


@pytest.mark.parametrize(
    ("call", "effect"),
    [("pwrite64", "error=ENOSPC"), ("pwrite64", "error=EIO"), ("fdatasync,fsync", "error=EIO")],
)
def test_a_disk_that_fails_for_a_while_costs_nothing(
    tmp_path: Path, call: str, effect: str
) -> None:
    done = sweep_lasting(call, effect, tmp_path, first=5 * _FIRST, step=40)
    assert not done.wrong


def test_a_disk_that_takes_its_time_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    with Oracle() as oracle, Forks("faults.subject") as forks:
        node = Node("node-1", tmp_path, oracle.url)
        lag = tmp_path / "lag"
        subject = node.start(forks, held=True, cycles=10, hurry=100.0, lag=str(lag))
        began = time.monotonic()
        with injected(Fault("fdatasync", "delay_enter=1000000", "8"), subject.pid) as slow:
            assert subject.wait() == 0
        assert slow.struck
        assert time.monotonic() - began > 1.0
        found = node.account(oracle)
        assert found.is_exact, found
    assert float(Path(lag).read_text()) < 0.5
