"""Which files are behind the names, and how that they are not is logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd_server.errors import FilesReplaced
from plexd_server.opened_files import OpenedFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_file_is_in_its_place_whatever_is_written_to_it(tmp_path: Path) -> None:
    files = OpenedFiles(ManualClock())
    files.add(made(tmp_path / "a"))

    (tmp_path / "a").write_text("more")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    files.check()


@pytest.mark.parametrize(
    "strike",
    [
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("b")),
        lambda path: made(path.with_name("b")).rename(path),
        lambda path: path.parent.rename(path.parent.with_name("moved")),
    ],
)
def test_a_file_that_is_not_there_or_another_is_refused(
    tmp_path: Path, strike: Callable[[Path], object]
) -> None:
    files = OpenedFiles(ManualClock())
    (tmp_path / "d").mkdir()
    files.add(made(tmp_path / "d" / "a"))
    strike(tmp_path / "d" / "a")

    with pytest.raises(FilesReplaced) as refused:
        files.check()
    assert str(tmp_path) not in str(refused.value)


def test_a_directory_that_was_moved_and_linked_is_in_its_place(tmp_path: Path) -> None:
    files = OpenedFiles(ManualClock())
    (tmp_path / "d").mkdir()
    files.add(made(tmp_path / "d" / "a"))

    (tmp_path / "d").rename(tmp_path / "larger disk")
    (tmp_path / "d").symlink_to(tmp_path / "larger disk")
    files.check()


async def test_it_is_logged_at_once_then_every_minute_and_when_it_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    files = OpenedFiles(clock)
    files.add(made(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    for _ in range(130):
        with pytest.raises(FilesReplaced):
            files.check()
        await clock.advance(1)
    (tmp_path / "b").rename(tmp_path / "a")
    files.check()

    lines = [(record.message, vars(record)) for record in caplog.records]
    assert [message for message, _ in lines] == ["the store fails"] * 3 + ["the store works again"]
    said = lines[0][1]
    assert said["what"] == "files"
    assert said["error"].startswith(f"{tmp_path / 'a'} was moved, deleted or replaced; put it back")
    assert lines[-1][1]["failures"] == 130


def made(path: Path) -> Path:
    path.write_text("content")
    return path
