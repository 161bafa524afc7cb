"""One damaged byte anywhere in a spool's files alters no point and hides no loss.

The full form, every position: ``PYTHONPATH=tests python -m faults every-byte``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.corrupting import FILES, Specimen

if TYPE_CHECKING:
    from pathlib import Path

# Prime, so that it falls on other places of every page.
_STRIDES = {"spool.db": 331, "spool.db-wal": 491, "spool.mark": 5, "spool.lock": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
async def test_a_damaged_byte_alters_no_point_and_hides_no_loss(name: str, fast_path: Path) -> None:
    specimen = await Specimen.make(fast_path)
    cases = list(specimen.cases(_STRIDES[name], (name,)))
    assert cases
    for case in cases:
        await specimen.outcome(*case)


# Each was found by the full form: the version that makes a database read-only, the schema's text
# and the dead letters' own page. Behind a damaged first page every row can still be had.
@pytest.mark.parametrize("position", [0, 18, 100, 3272, 20484])
async def test_damage_that_once_lost_rows_loses_none(position: int, fast_path: Path) -> None:
    specimen = await Specimen.make(fast_path)
    for kind in ("flip", "zero"):
        assert await specimen.outcome("spool.db", kind, position) == "nothing lost"
