from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from procfs.trees import HangingStatvfs, ProcTree, SteppingClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path)


@pytest.fixture
def clock(tree: ProcTree) -> SteppingClock:
    return SteppingClock(on_sleep=tree.step)


@pytest.fixture
def hanging() -> Iterator[HangingStatvfs]:
    statvfs = HangingStatvfs()
    yield statvfs
    statvfs.heal()
