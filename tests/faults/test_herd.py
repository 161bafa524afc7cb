"""Many nodes come back at once; the full form are ten thousand (H12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.herd import come_back

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


def test_a_fleet_that_comes_back_at_once_is_taken_in_whole(tmp_path: Path) -> None:
    done = come_back(300, tmp_path)
    assert (done.lost, done.doubled, done.altered) == (0, 0, 0), done
    assert done.points == 300 * 50
