"""Marks in memory: what is asked of the tables, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd_server.store.embedded.mark_cache import (
    EPOCHS_IN_MEMORY,
    KnownMarks,
    MarkCache,
    shortened,
)
from plexd_server.store.marks import FOLDED, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScriptedTables:
    """Has these marks, and counts how often it is asked."""

    def __init__(self, *marks: Mark) -> None:
        self.marks = {mark.epoch: mark for mark in marks}
        self.asked: list[str] = []

    def find(self, node_id: str, epoch: str) -> Mark | None:
        del node_id
        self.asked.append(epoch)
        return self.marks.get(epoch)

    def of_node(self, node_id: str) -> Sequence[Mark]:
        del node_id
        self.asked.append("*")
        return list(self.marks.values())


def mark(number: int, epoch: str = "") -> Mark:
    return Mark(node_id="n1", epoch=epoch or f"{number:032x}", ordinal=number, turn=number)


def filled(tables: ScriptedTables, count: int) -> MarkCache:
    cache = MarkCache(KnownMarks(salt="s"), tables)
    for number in range(1, count + 1):
        cache.put(mark(number), number)
    return cache


def test_whether_an_epoch_is_new_is_known_without_asking() -> None:
    tables = ScriptedTables()
    cache = filled(tables, 100)

    assert [cache.get("n1", f"{number:032x}") for number in range(200, 300)] == [None] * 100
    assert cache.get("n1", FOLDED) is None
    assert cache.get("n2", f"{1:032x}") is None
    assert tables.asked == []
    assert cache.count("n1") == 100


def test_an_old_mark_is_here_until_the_tables_have_it() -> None:
    tables = ScriptedTables(mark(1))
    cache = filled(tables, EPOCHS_IN_MEMORY + 5)  # five are shortened, with the records 9 to 13
    assert cache.get("n1", f"{1:032x}") == mark(1)
    assert set(cache.all_of_node("n1")) == {f"{number:032x}" for number in range(1, 14)}
    cache.settle(8)
    assert cache.get("n1", f"{1:032x}") == mark(1)
    assert tables.asked == ["*"]

    cache.settle(9)
    assert cache.get("n1", f"{1:032x}") == mark(1)
    assert tables.asked == ["*", f"{1:032x}"]


def test_an_old_mark_that_moves_again_is_whole_and_counted_once() -> None:
    cache = filled(ScriptedTables(), EPOCHS_IN_MEMORY + 2)
    cache.put(mark(50, f"{1:032x}"), 50)

    assert cache.count("n1") == EPOCHS_IN_MEMORY + 2
    found = cache.get("n1", f"{1:032x}")
    assert found is not None
    assert found.ordinal == 50
    assert cache.turn("n1") == (50, f"{1:032x}")


def test_marks_that_are_not_kept_are_new_again() -> None:
    tables = ScriptedTables()
    cache = filled(tables, EPOCHS_IN_MEMORY + 2)
    for number in (1, EPOCHS_IN_MEMORY + 2):  # a shortened one, and a whole one
        cache.remove("n1", f"{number:032x}", number)
        assert cache.get("n1", f"{number:032x}") is None

    assert cache.count("n1") == EPOCHS_IN_MEMORY
    assert tables.asked == []


def test_a_start_knows_the_epochs_that_the_tables_shortened() -> None:
    old = f"{1:032x}"
    tables = ScriptedTables(mark(1))
    known = KnownMarks([mark(2)], {"n1": [shortened(old, "salt")]}, "salt")
    cache = MarkCache(known, tables)

    assert cache.get("n1", old) == mark(1)
    assert cache.get("n1", f"{3:032x}") is None
    assert cache.ordinal == 2
    assert tables.asked == [old]


def test_a_mark_that_left_twice_is_here_until_the_tables_have_the_second() -> None:
    tables = ScriptedTables(mark(1))
    cache = filled(tables, EPOCHS_IN_MEMORY + 1)  # the first one leaves with record 9
    moved = mark(20, f"{1:032x}")
    cache.put(moved, 10)
    for number in range(21, 21 + EPOCHS_IN_MEMORY):
        cache.put(mark(number), number)  # it leaves again with record 28

    cache.settle(9)
    assert cache.get("n1", f"{1:032x}") == moved
    assert cache.all_of_node("n1")[f"{1:032x}"] == moved
    cache.settle(28)
    assert cache.get("n1", f"{1:032x}") == mark(1)  # of these tables, which never change


def test_a_mark_that_was_removed_does_not_come_back_from_tables_that_are_behind() -> None:
    tables = ScriptedTables(*map(mark, range(1, 10)))
    cache = filled(tables, EPOCHS_IN_MEMORY + 1)
    cache.settle(9)
    for number in (1, 9):  # one that is shortened, and one that is whole
        cache.remove("n1", f"{number:032x}", 10)

    kept = {f"{number:032x}" for number in range(2, 9)}
    assert set(cache.all_of_node("n1")) == kept
    assert cache.get("n1", f"{1:032x}") is None
    assert cache.count("n1") == len(kept)
    for number in (1, 9):
        del tables.marks[f"{number:032x}"]
    cache.settle(10)
    assert set(cache.all_of_node("n1")) == kept
