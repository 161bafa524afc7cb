"""The directories that hold everything outlive a power cut."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from plexd.clock import SystemClock
from plexd_server.upkeep.backup import back_up
from plexd_server.upkeep.data_dir import open_registry, provide_registry


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """What was made durable."""
    found: set[Path] = set()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        found.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return found


def test_a_new_data_directory_and_what_is_above_it_are_durable(
    tmp_path: Path, synced: set[Path]
) -> None:
    provide_registry(tmp_path / "a" / "b" / "d", SystemClock()).close()

    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "d"} <= synced
    assert stat.S_IMODE((tmp_path / "a" / "b" / "d").stat().st_mode) == 0o700


def test_a_data_directory_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    provide_registry(tmp_path, SystemClock()).close()
    open_registry(tmp_path, SystemClock()).close()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_backup_is_durable_with_its_name(tmp_path: Path, synced: set[Path]) -> None:
    copy = tmp_path / "copies" / "today"
    copy.parent.mkdir()
    with closing(provide_registry(tmp_path / "d", SystemClock())) as registry:
        back_up(registry, tmp_path / "d", copy, with_points=True)

    assert {copy.parent, copy, copy / "registry.db", copy / "master.key"} <= synced
