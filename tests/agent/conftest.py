from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.agent import config
from plexd.agent.logs import StderrHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parent.parent / "golden" / "agent"


@pytest.fixture
def full_sample() -> str:
    return (GOLDEN / "full.yaml").read_text()


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "c.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares with a recorded output; UPDATE_GOLDEN=1 records it anew."""

    def check(name: str, actual: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(actual)
        assert actual == path.read_text()

    return check


@pytest.fixture
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "etc" / "config.yaml")
    for name in [name for name in os.environ if name.startswith("PLEXD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def _process_state() -> Iterator[None]:
    """Puts back what a command changes for the rest of its process."""
    root = logging.getLogger()
    level = root.level
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite itself may run under nohup
    yield
    for handler in [found for found in root.handlers if isinstance(found, StderrHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for number, handler_before in handlers.items():
        signal.signal(number, handler_before)
