"""What the reports of one append to the journal do, before it is known that they are durable."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from plexd_server.store.journal import Record
from plexd_server.store.marks import FOLDED, MARKS_OF_NODE, Mark, Others, Step, advance, fold

if TYPE_CHECKING:
    from plexd_server.store.embedded.mark_cache import MarkCache
    from plexd_server.store.port import Report

    Key = tuple[str, str]

# Marks beyond the bound are folded so many at once, as it takes a reading of all of them.
_FOLDED_AT_ONCE: Final = 256


class StagedReports:
    """Reports that become durable together, and the marks after them.

    Nothing in the cache changes before `apply`: if the append fails, the object is thrown away.
    """

    def __init__(self, cache: MarkCache) -> None:
        self._cache = cache
        self._marks: dict[Key, Mark | None] = {}
        self._turns: dict[str, tuple[int, str]] = {}
        self._added: Counter[str] = Counter()
        self._ordinal = cache.ordinal
        self._to_store: dict[str, Mark] = {}
        self._removed: dict[str, None] = {}

    def add(self, report: Report) -> tuple[Step, Record | None]:
        """Return what ``report`` does after the reports added before it, and its record.

        There is no record if it changes nothing but the count of duplicates.
        """
        self._to_store, self._removed = {}, {}
        epoch = report.name.epoch if report.name else ""
        known = self._get(report.node_id, epoch)
        mark = known or Mark(node_id=report.node_id, epoch=epoch)
        step = advance(mark, report, self._others(mark, report))
        if step.must_store:
            self._store(step)
            return step, Record.of(
                report,
                step.points,
                tuple(self._to_store.values()),
                step.losses,
                tuple(self._removed),
            )
        if known is not None:
            self._marks[report.node_id, epoch] = step.mark  # stored with the next report
        return step, None

    def replay(self, record: Record) -> None:
        """Add what was decided about a report before."""
        for epoch in record.removed:
            self._marks[record.node_id, epoch] = None
        for mark in record.marks:
            self._ordinal = max(self._ordinal, mark.ordinal)
            self._note(mark)

    def apply(self, record: int) -> None:
        """Put the marks into the cache, once the reports are durable, up to this record."""
        for key, mark in self._marks.items():
            if mark is None:
                self._cache.remove(*key, record)
            else:
                self._cache.put(mark, record)

    def _get(self, node_id: str, epoch: str) -> Mark | None:
        key = node_id, epoch
        return self._marks[key] if key in self._marks else self._cache.get(*key)

    def _others(self, mark: Mark, report: Report) -> Others:
        turn, epoch = self._turn(report.node_id)
        if mark.began or report.name is None:
            return Others(turn, epoch)
        folded = self._get(report.node_id, FOLDED)
        before = report.after and report.after.epoch
        predecessor = self._get(report.node_id, before) if before else None
        return Others(turn, epoch, folded.floor if folded else None, predecessor)

    def _store(self, step: Step) -> None:
        mark = step.mark
        if step.predecessor is not None:
            self._keep(step.predecessor)
        self._keep(mark)
        if self._cache.count(mark.node_id) + self._added[mark.node_id] > MARKS_OF_NODE:
            self._fold_oldest(mark.node_id)

    def _keep(self, mark: Mark) -> None:
        """Give a mark its ordinal, the highest so far, and store it with the report."""
        self._added[mark.node_id] += not mark.ordinal
        self._ordinal += 1
        numbered = replace(mark, ordinal=self._ordinal)
        self._to_store[mark.epoch] = numbered
        self._note(numbered)

    def _note(self, mark: Mark) -> None:
        key = mark.node_id, mark.epoch
        self._marks.pop(key, None)  # the latest mark goes last
        self._marks[key] = mark
        if mark.turn > self._turn(mark.node_id)[0]:
            self._turns[mark.node_id] = (mark.turn, mark.epoch)

    def _turn(self, node_id: str) -> tuple[int, str]:
        return self._turns.get(node_id) or self._cache.turn(node_id)

    def _fold_oldest(self, node_id: str) -> None:
        """Fold the marks that moved longest ago into one."""
        found = self._cache.all_of_node(node_id)
        for (node, epoch), mark in self._marks.items():
            if node == node_id:
                found.pop(epoch, None)
                found |= {epoch: mark} if mark else {}
        folded = found.pop(FOLDED, Mark(node_id=node_id, epoch=FOLDED))
        found.pop("", None)
        for mark in sorted(found.values(), key=lambda mark: mark.turn)[:_FOLDED_AT_ONCE]:
            folded = fold(folded, mark)
            self._remove(mark)
        self._keep(folded)

    def _remove(self, mark: Mark) -> None:
        self._marks[mark.node_id, mark.epoch] = None
        self._to_store.pop(mark.epoch, None)
        self._removed[mark.epoch] = None
        self._added[mark.node_id] -= 1
