"""kill -9 of the server at calls of the kernel, from making its tables to its end (H01, H17)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.serversweep import sweep_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("strace"), pytest.mark.timeout(120)]


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync,fsync", "write", "sendto", "link,unlink"])
def test_killed_at_a_call_it_opens_again_and_stores_the_batch_once(
    tmp_path: Path, call: str
) -> None:
    """Each run begins at another place, so that in time all places had their turn."""
    done = sweep_server(call, tmp_path, first=random.randrange(1, 6), step=6)
    assert not done.wrong
