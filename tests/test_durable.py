from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.durable import create_private, make_directory, open_to_read, sync, write_private
from plexd_server.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was made durable, in order."""
    found: list[Path] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return found


@pytest.mark.parametrize("make", [make_directory, Journal])
def test_the_name_of_a_new_directory_is_durable(
    tmp_path: Path, synced: list[Path], make: Callable[[Path], object]
) -> None:
    make(tmp_path / "new")

    assert synced == [tmp_path]
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_an_existing_directory_is_not_changed(tmp_path: Path, synced: list[Path]) -> None:
    tmp_path.chmod(0o750)
    make_directory(tmp_path)

    assert synced == []
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")


def test_a_private_file_is_written_durably_for_its_owner_only(
    tmp_path: Path, synced: list[Path]
) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"secret")
    finally:
        os.umask(before)
    sync(tmp_path)

    assert synced == [tmp_path / "key", tmp_path]
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_private_file_never_replaces_another(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        create_private(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_that_nobody_writes_to_holds_no_reader_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open_to_read(tmp_path / "pipe") as opened:
        assert opened.read() == b""


def test_what_comes_through_a_pipe_is_read_whole() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), open_to_read(Path(f"/proc/self/fd/{reading}")) as opened:
        os.write(writing, b"one")
        assert opened.read(3) == b"one"
        os.close(writing)
        assert opened.read() == b""
