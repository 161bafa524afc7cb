"""Clones and snapshots: what any machine still holds is stored once, whoever else had its names."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest

from faults.clones import clone_and_put_back

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


def test_cloned_and_put_back_machines_lose_and_double_nothing_that_is_on_a_disk(
    tmp_path: Path,
) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    done = clone_and_put_back(8, tmp_path, seed)
    assert done.account.is_exact, done
    assert done.account.told > 0
    assert done.copies + done.put_back == 8
