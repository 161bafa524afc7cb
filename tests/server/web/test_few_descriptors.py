"""A machine that allows the server few open files."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import requests

from server.running import connected, running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [48, 256])
def test_few_descriptors_are_said_at_the_start_and_fill_no_log(
    tmp_path: Path, descriptors: int
) -> None:
    log = tmp_path / "d.log"
    with running(tmp_path / "d", descriptors=descriptors) as server:
        with ExitStack() as opened:
            for _ in range(2 * descriptors):
                opened.enter_context(connected(server.url))
        deadline = time.monotonic() + 20
        status = 0
        while status != 200 and time.monotonic() < deadline:
            with suppress(requests.RequestException):
                status = requests.get(f"{server.url}/readyz", timeout=5).status_code
        assert status == 200
        assert server.stop() == 0

    lines = log.read_text().splitlines()
    assert [f"limit={descriptors}" in line for line in lines if "few descriptors" in line] == [True]
    assert sum("too many connections" in line for line in lines) == 1
    assert len(lines) < 10
