"""The journal: what was appended is read back, after every failure in between."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plexd_server.errors import JournalDamaged
from plexd_server.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def opened(directory: Path, *, segment_bytes: int = 2**20, after: int = 0) -> Journal:
    journal = Journal(directory, segment_bytes=segment_bytes)
    list(journal.replay(after))
    return journal


def read(directory: Path, after: int = 0) -> list[tuple[int, bytes]]:
    return list(Journal(directory).replay(after))


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_an_empty_journal_has_no_records(directory: Path) -> None:
    assert read(directory) == []
    assert directory.stat().st_mode & 0o777 == 0o700


def test_records_are_numbered_and_read_back_in_order(directory: Path) -> None:
    journal = opened(directory)
    assert journal.append([b"a", b""]) == 2
    assert journal.append([b"c" * 5000]) == 3
    assert read(directory) == [(1, b"a"), (2, b""), (3, b"c" * 5000)]
    assert read(directory, after=2) == [(3, b"c" * 5000)]


def test_numbers_continue_after_a_restart(directory: Path) -> None:
    opened(directory).append([b"a"])
    assert opened(directory).append([b"b"]) == 2
    assert read(directory) == [(1, b"a"), (2, b"b")]


def test_numbers_continue_where_the_tables_are_when_the_journal_is_new(directory: Path) -> None:
    assert opened(directory, after=41).append([b"x"]) == 42
    assert read(directory, after=41) == [(42, b"x")]


def test_segments_are_deleted_once_nothing_in_them_is_needed(directory: Path) -> None:
    journal = opened(directory, segment_bytes=100)
    for _ in range(6):
        journal.append([b"x" * 60])
    before = files(directory)
    journal.delete_upto(3)
    assert len(files(directory)) < len(before)
    assert [number for number, _ in read(directory, after=3)] == [4, 5, 6]
    journal.delete_upto(6)
    assert len(files(directory)) == 1
    assert journal.append([b"more"]) == 7
    assert read(directory, after=6) == [(7, b"more")]


def test_an_append_that_was_cut_at_any_length_is_not_acknowledged(directory: Path) -> None:
    journal = opened(directory)
    journal.append([b"first"])
    acknowledged = files(directory)[0].stat().st_size
    journal.append([b"second"])
    path = files(directory)[0]
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        expected = [(1, b"first")] if length >= acknowledged else []
        assert read(directory) == expected
        again = opened(directory)
        again.append([b"more"])
        again.close()
        assert read(directory) == [*expected, (len(expected) + 1, b"more")]
        for other in files(directory):
            other.unlink()


def test_no_flipped_byte_is_read_as_a_record(directory: Path) -> None:
    opened(directory).append([b"first", b"second", b"third"])
    path = files(directory)[0]
    whole = path.read_bytes()
    records = [(1, b"first"), (2, b"second"), (3, b"third")]
    for place in range(whole.index(b"first") - 16, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        found = read(directory)
        assert found == records[: len(found)]
        assert len(found) < len(records)


def test_a_damaged_record_before_another_append_is_refused_by_name(directory: Path) -> None:
    """All but the last append were acknowledged: reading on would lose them silently."""
    journal = opened(directory)
    journal.append([b"first"])
    journal.append([b"second", b"third"])
    path = files(directory)[0]
    acknowledged = path.stat().st_size
    journal.append([b"fourth"])
    whole = path.read_bytes()
    for place in range(acknowledged):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(JournalDamaged, match=rf"{path} is damaged: what stands before record"):
            read(directory)


def test_what_is_in_the_tables_may_be_damaged_if_nothing_follows(directory: Path) -> None:
    journal = opened(directory)
    journal.append([b"first"])
    journal.append([b"second"])
    path = files(directory)[0]
    path.write_bytes(path.read_bytes().replace(b"first", b"other"))

    assert read(directory, after=2) == []
    assert opened(directory, after=2).append([b"third"]) == 3
    assert read(directory, after=2) == [(3, b"third")]


def test_an_append_of_which_the_disk_has_only_the_end_was_not_acknowledged(directory: Path) -> None:
    """A power cut leaves some pages written and others not, in any order."""
    journal = opened(directory)
    journal.append([b"first"])
    kept = files(directory)[0].stat().st_size
    journal.append([b"second", b"third", b"fourth"])
    path = files(directory)[0]
    whole = path.read_bytes()
    for place in range(kept, whole.index(b"second") + len(b"second")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert read(directory) == [(1, b"first")]


def test_what_was_ignored_at_the_end_is_counted(directory: Path) -> None:
    opened(directory).append([b"first"])
    path = files(directory)[0]
    path.write_bytes(path.read_bytes() + b"half a record")
    journal = Journal(directory)
    assert list(journal.replay(0)) == [(1, b"first")]
    assert journal.ignored_bytes == len(b"half a record")


def test_damage_before_the_last_segment_is_refused(directory: Path) -> None:
    journal = opened(directory, segment_bytes=1)
    for text in (b"first", b"second", b"third"):
        journal.append([text])
    first, second, _ = files(directory)
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(JournalDamaged, match=rf"{second} is damaged: records 2 to 2 cannot be"):
        read(directory)
    second.unlink()
    with pytest.raises(JournalDamaged, match=rf"{first} is damaged: records 2 to 2 cannot be"):
        read(directory)
    first.unlink()
    with pytest.raises(JournalDamaged, match=r"records 1 to 2 are gone"):
        read(directory)
    assert read(directory, after=2) == [(3, b"third")]


def test_a_failed_append_leaves_nothing_and_the_next_one_works(
    directory: Path, files_may_grow_to: Callable[[int], None]
) -> None:
    files_may_grow_to(4096)
    journal = opened(directory)
    journal.append([b"first"])
    with pytest.raises(OSError, match="too large"):
        journal.append([b"small", b"x" * 8000])
    assert journal.append([b"second"]) == 2
    assert read(directory) == [(1, b"first"), (2, b"second")]


def test_what_a_failed_append_left_behind_is_not_read(directory: Path) -> None:
    journal = opened(directory)
    journal.append([b"first"])
    path = files(directory)[0]
    acknowledged = path.read_bytes()
    journal.append([b"never acknowledged", b"half"])
    failed = path.read_bytes()[:-2]
    path.write_bytes(acknowledged)
    after_failure = opened(directory)
    after_failure.append([b"second"])
    path.write_bytes(failed)
    assert read(directory) == [(1, b"first"), (2, b"second")]


def test_only_the_owner_may_read_the_files(directory: Path) -> None:
    mask = os.umask(0)
    try:
        opened(directory).append([b"x"])
    finally:
        os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in files(directory)] == [0o600]


@settings(max_examples=50)
@given(
    groups=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=8),
    restarts=st.sets(st.integers(0, 8)),
    segment_bytes=st.integers(1, 1000),
)
def test_whatever_was_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    groups: Sequence[Sequence[bytes]],
    restarts: set[int],
    segment_bytes: int,
) -> None:
    directory = tmp_path_factory.mktemp("journals") / "journal"
    journal = opened(directory, segment_bytes=segment_bytes)
    expected: list[bytes] = []
    for index, group in enumerate(groups):
        if index in restarts:
            journal.close()
            journal = opened(directory, segment_bytes=segment_bytes)
        expected += group
        assert journal.append(group) == len(expected)
    assert read(directory) == list(enumerate(expected, 1))
