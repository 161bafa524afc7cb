"""The power is cut: what was promised before is there, whole, and once (C06, C07)."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.powercut import cut_apart

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("unshare", "mkfs.ext4", "losetup", "strace"), pytest.mark.timeout(120)]


def test_power_cuts_also_during_recovery_cost_nothing_that_was_promised(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    done = cut_apart(9, tmp_path, seed)
    assert (done.lost, done.doubled, done.altered) == (0, 0, 0), done
    assert done.recoveries == 3
    assert done.told > 0


def test_the_bench_finds_out_a_disk_that_lies_about_syncing(tmp_path: Path) -> None:
    """Otherwise it would prove nothing."""
    assert cut_apart(12, tmp_path, 1, lying=True).lost > 0
