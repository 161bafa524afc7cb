"""Sockets that stop before or during a TLS handshake; the full form are six thousand (G11)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from faults.handshakes import KINDS, crowd, secure_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

SOCKETS = 100
MOST_KIB_EACH = 64  # asyncio's own need 300


def test_sockets_that_stop_in_a_handshake_cost_little_and_live_ten_seconds(tmp_path: Path) -> None:
    with secure_server(tmp_path) as (server, trusted), ExitStack() as stack:
        crowd(stack, server.port, 1, b"", trusted)  # what the first one alone needs
        before, calm = server.resident_kib(), server.descriptors()
        began = time.monotonic()
        for beginning in KINDS.values():
            crowd(stack, server.port, SOCKETS, beginning)
        crowd(stack, server.port, 1, b"", trusted)  # whoever came before it was seen
        rise = server.resident_kib() - before
        while server.descriptors() > calm:
            assert time.monotonic() - began < 20, "they are still open"
            time.sleep(0.05)

    assert rise < MOST_KIB_EACH * SOCKETS * len(KINDS)
