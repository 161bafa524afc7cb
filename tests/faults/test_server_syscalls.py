"""Faults at calls of the kernel in the server's life, from making its tables on (H01, H08, H17)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.serversweep import sweep_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("strace"), pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    "call", ["pwrite64", "fdatasync,fsync", "write", "sendto", "link,unlink,unlinkat"]
)
def test_killed_at_a_call_it_opens_again_and_stores_the_batch_once(
    tmp_path: Path, call: str
) -> None:
    """Each run begins at another place, so that in time all places had their turn."""
    done = sweep_server(call, tmp_path, first=random.randrange(1, 6), step=6)
    assert not done.wrong


@pytest.mark.parametrize(
    ("call", "effect"),
    [
        ("fdatasync,fsync", "error=EIO"),
        ("pwrite64", "error=ENOSPC"),
        ("write", "error=ENOSPC"),
        ("pread64", "error=EIO"),
    ],
)
def test_a_call_that_fails_costs_nothing_that_was_answered(
    tmp_path: Path, call: str, effect: str
) -> None:
    done = sweep_server(call, tmp_path, effect=effect, first=random.randrange(1, 4), step=5)
    assert not done.wrong
