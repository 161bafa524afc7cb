from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.agent.config import settings as config

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Compares with a recorded output; UPDATE_GOLDEN=1 records it again."""

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
