"""The wall clock of a running agent's process steps by hours and decades (F01)."""

from __future__ import annotations

import re
import shutil
import signal
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults.apart import do
from faults.bench import Node
from faults.forks import Forks
from support.oracle import ACCEPT, Answer, Oracle

if TYPE_CHECKING:
    from collections.abc import Callable

_CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(_CC is None, reason="not installed: cc")

_YEAR = 365 * 86_400
_SOURCE = Path(__file__).with_name("stepped.c")
_IN_2106 = re.compile("^2106-.*metrics report failed", re.MULTILINE)
_PATIENCE_SECONDS = 20.0


class SteppedClock:
    """What processes that are started from now on take for the time of day."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library = directory / "stepped.so"
        self._offset = directory / "offset"
        self._offset.write_bytes(bytes(8))
        do(str(_CC), "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl")
        monkeypatch.setenv("PLEXD_TEST_CLOCK_OFFSET", str(self._offset))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def set_off(self, seconds: int) -> None:
        """Let it be that many seconds off from now on."""
        with self._offset.open("r+b") as opened:  # in place: it is mapped
            opened.write(struct.pack("=q", seconds))


def until(condition: Callable[[], bool]) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def until_more(oracle: Oracle, node: Node) -> None:
    enough = len(oracle.points(node.name)) + 100
    until(lambda: len(oracle.points(node.name)) >= enough)


def test_a_process_whose_clock_steps_reports_on_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SteppedClock(tmp_path, monkeypatch)
    with Oracle() as oracle, Forks("faults.subject") as forks:
        node = Node("node-1", tmp_path / "node", oracle.url)
        subject = node.start(forks)
        for off in (3600, -3600, -10 * _YEAR, 12 * _YEAR, 80 * _YEAR):
            until_more(oracle, node)
            clock.set_off(off)
        until_more(oracle, node)
        assert "spool" not in node.log.read_text()
        oracle.answers = lambda _: Answer(status=503)
        until(lambda: _IN_2106.search(node.log.read_text()) is not None)
        oracle.answers = lambda _: ACCEPT
        subject.send(signal.SIGTERM)
        assert subject.wait() == 0, node.log.read_text()
        node.drain(forks)
        found = node.account(oracle)
        assert found.is_exact, found
        assert not oracle.contradictions
        assert oracle.lost(node.name) == 0
