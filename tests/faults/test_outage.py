"""Half an hour without a control plane; the full form is a day (C13, D01)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from faults.outage import POINTS_PER_CYCLE, outage

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_outage_is_delivered_exactly_and_in_order(tmp_path: Path) -> None:
    done = await outage(tmp_path, timedelta(minutes=30))
    assert done.collected == 120 * POINTS_PER_CYCLE
    assert done.delivered == done.collected
    assert done.in_order
