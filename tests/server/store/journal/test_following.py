"""Following the journal behind its writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plexd_server.errors import JournalDamaged
from plexd_server.store.journal import Follower, Journal
from plexd_server.store.journal.segments import list_segments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def opened(directory: Path, *, segment_bytes: int = 2**20, after: int = 0) -> Journal:
    journal = Journal(directory, segment_bytes=segment_bytes)
    list(journal.replay(after))
    return journal


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_follower_reads_each_record_once_it_is_durable(directory: Path) -> None:
    journal, follower = opened(directory), Follower(directory, 0)
    journal.append([b"a", b""])
    assert [follower.next(), follower.next()] == [b"a", b""]
    journal.append([b"c" * 70_000])
    assert follower.next() == b"c" * 70_000
    assert follower.position == 3


def test_a_follower_begins_anywhere_and_goes_from_segment_to_segment(directory: Path) -> None:
    journal = opened(directory, segment_bytes=100)
    for number in range(1, 9):
        journal.append([b"%d" % number * 40])
    assert len(list_segments(directory)) > 2

    for position in range(8):
        follower = Follower(directory, position)
        assert [follower.next()[:1] for _ in range(position, 8)] == [
            b"%d" % number for number in range(position + 1, 9)
        ]
        follower.close()


def test_what_a_failed_append_left_behind_is_not_followed(directory: Path) -> None:
    journal = opened(directory)
    journal.append([b"first"])
    ((_, path),) = list_segments(directory)
    acknowledged = path.read_bytes()
    journal.append([b"never acknowledged"])
    failed = path.read_bytes()
    path.write_bytes(acknowledged)
    opened(directory).append([b"second"])
    path.write_bytes(failed)
    follower = Follower(directory, 0)

    assert [follower.next(), follower.next()] == [b"first", b"second"]


@pytest.mark.parametrize("position", [0, 1])
def test_a_record_that_is_damaged_is_named_and_read_once_it_is_mended(
    directory: Path, position: int
) -> None:
    opened(directory).append([b"first", b"second"])
    ((_, path),) = list_segments(directory)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"first", b"other").replace(b"second", b"no sec"))
    follower = Follower(directory, position)
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=rf"record {position + 1} cannot be read"):
            follower.next()

    path.write_bytes(whole)
    assert follower.next() == [b"first", b"second"][position]


def test_another_journal_of_the_same_name_is_not_followed(directory: Path) -> None:
    opened(directory).append([b"first"])
    follower = Follower(directory, 0)
    directory.rename(directory.with_name("moved"))
    for _ in range(2):
        with pytest.raises(OSError, match="moved, deleted or replaced"):
            follower.next()
        opened(directory).append([b"another"])

    directory.rename(directory.with_name("other"))
    directory.with_name("moved").rename(directory)
    assert follower.next() == b"first"


def test_a_segment_that_is_deleted_while_it_is_followed_is_read_to_its_end(
    directory: Path,
) -> None:
    journal, follower = opened(directory), Follower(directory, 0)
    journal.append([b"first", b"second"])
    assert follower.next() == b"first"
    for _, path in list_segments(directory):
        path.unlink()
    with pytest.raises(OSError, match="moved, deleted or replaced"):
        journal.append([b"refused"])
    journal.append([b"third"])

    assert [follower.next(), follower.next()] == [b"second", b"third"]
    assert [Follower(directory, position).next() for position in range(3)] == [
        b"first", b"second", b"third"
    ]  # fmt: skip


def test_segments_go_when_the_slowest_follower_has_them(directory: Path) -> None:
    journal = opened(directory, segment_bytes=1)
    journal.release("slow", 0)
    for number in range(1, 6):
        journal.append([b"%d" % number])
        journal.release("fast", number)
    assert len(list_segments(directory)) == 5

    journal.release("slow", 3)
    assert [first for first, _ in list_segments(directory)] == [4, 5]
    journal.release("slow", 5)
    assert [first for first, _ in list_segments(directory)] == [5]


@settings(max_examples=50)
@given(
    groups=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=8),
    read=st.lists(st.integers(0, 6), min_size=8, max_size=8),
    restarts=st.sets(st.integers(0, 8)),
    segment_bytes=st.integers(1, 1000),
)
def test_whatever_was_appended_is_followed_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    groups: Sequence[Sequence[bytes]],
    read: Sequence[int],
    restarts: set[int],
    segment_bytes: int,
) -> None:
    directory = tmp_path_factory.mktemp("journals") / "journal"
    journal = opened(directory, segment_bytes=segment_bytes)
    follower = Follower(directory, 0)
    expected: list[bytes] = []
    found: list[bytes] = []
    for index, group in enumerate(groups):
        if index in restarts:
            follower = Follower(directory, follower.position)
        journal.append(group)
        expected += group
        behind = len(expected) - len(found)
        found += [follower.next() for _ in range(min(read[index], behind))]
        journal.release("tables", follower.position)
    found += [follower.next() for _ in range(journal.last - follower.position)]
    assert found == expected
