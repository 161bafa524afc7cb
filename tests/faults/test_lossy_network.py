"""Packets are lost and the link is cut: everything arrives, once (D06)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.apart import needs
from faults.lossy import lose_packets

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*needs("ip", "nft"), pytest.mark.timeout(180)]


def test_on_a_link_that_loses_packets_and_is_cut_everything_arrives_once(tmp_path: Path) -> None:
    done = lose_packets(3, tmp_path)
    assert done.account.is_exact, done
    assert done.account.told > 0
    assert done.gaps == 0
    assert done.packets > 10
