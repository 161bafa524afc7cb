"""Somebody else fills the disk; points wait in memory and are back on it afterwards (C02, C12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.diskfull import fill_apart

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("unshare", "mount"), pytest.mark.timeout(120)]


@pytest.mark.parametrize("refusing", [False, True], ids=["delivering", "and nobody to deliver to"])
def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path, refusing: bool) -> None:
    done = fill_apart(3, tmp_path, refusing=refusing)
    assert (done.lost, done.doubled, done.altered, done.dropped) == (0, 0, 0, 0), done.log
    assert done.promised > 0
    assert "spool degraded" in done.log
    assert done.log.count("spool recovered") == done.log.count("spool degraded")
