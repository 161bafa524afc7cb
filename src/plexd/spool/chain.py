"""How the points of a spool are named, and what is reported about those that went before.

A point's name is ``(epoch, place)``. Points leave in the order in which they were named, so there
is one *head*: the epoch and the place up to which everything was delivered or lost. This is pure
bookkeeping, the same for every spool; ``docs/spec/delivery.md`` has the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.api import BatchName, Predecessor, continuation

if TYPE_CHECKING:
    from datetime import datetime


class Chain(Struct):
    """The names that were given, and the head, member by member as in ``docs/spec/spool.md``."""

    epoch: str = ""
    place: int = 0
    head: str = ""
    sent_as: str = ""
    passed: int = 0
    acknowledged: int = 0
    dropped: int = 0
    reported: int = 0
    unseen: int = 0
    before_epoch: str = ""
    before_place: int = 0
    skipped: int = 0

    @property
    def predecessor(self) -> Predecessor:
        """What was delivered before the head."""
        return Predecessor(self.before_epoch, self.before_place, self.skipped)

    def ahead(self, name: BatchName) -> int:
        """Return how many points called ``name`` are at the head."""
        if name.epoch != self.sent_as:
            return 0
        return max(0, name.last - max(self.passed, name.first - 1))

    def begin(self, epoch: str) -> None:
        """Name what is appended from now on in ``epoch``, which nobody has used."""
        self.epoch, self.place = epoch, 0

    def reach(self, epoch: str) -> None:
        """Make ``epoch`` the head, after the last point of the head before it has left."""
        if epoch == self.head:
            return
        if self.acknowledged:
            self._come_after(self.sent_as, self.passed + self.unseen, 0)
        else:
            self.skipped += self.dropped
        self.head = self.sent_as = epoch
        self._start(passed=0)

    def _come_after(self, epoch: str, place: int, skipped: int) -> None:
        self.before_epoch, self.before_place, self.skipped = epoch, place, skipped

    def _start(self, passed: int) -> None:
        self.passed = passed
        self.acknowledged = self.dropped = self.reported = self.unseen = 0

    def acknowledge(self, last: int, points: int, reported: int) -> None:
        """Note that the head's ``points`` up to ``last`` arrived, in a batch with this loss."""
        self._pass(last, points)
        self.acknowledged = max(self.acknowledged, last)
        self.reported = max(self.reported, reported)
        self.unseen = max(0, min(self.unseen, self.dropped - self.reported))

    def _pass(self, last: int, points: int) -> None:
        """Pass the place ``last``: what was not among the ``points`` is seen to be missing."""
        seen = max(0, last - self.passed - points)
        self.unseen = max(0, self.unseen - seen)
        self.passed = max(self.passed, last)

    def drop(self, last: int, points: int) -> None:
        """Note that ``points`` of the head up to the place ``last`` are lost."""
        self._pass(last, points)
        self.dropped += points

    def refuse(self, last: int, points: int) -> None:
        """Note that ``points`` of the head up to ``last`` were refused: the receiver knows that."""
        self.drop(last, points)
        self.acknowledged = max(self.acknowledged, last)
        self.reported, self.unseen = self.dropped, 0

    def lose(self, points: int) -> None:
        """Note that ``points`` are lost of which nobody knows the places."""
        self.dropped += points
        self.unseen += points

    def find_again(self, name: BatchName, points: int, reported: int) -> None:
        """Note that ``points`` of ``name`` arrived that were counted as lost while under way.

        ``reported`` is what the batch itself reported as lost or skipped.
        """
        if name.epoch == self.sent_as:
            self.dropped -= points
            self.acknowledged = max(self.acknowledged, min(name.last, self.passed))
        elif name.epoch != self.before_epoch:
            self._come_after(name.epoch, name.last, max(0, self.skipped - reported - points))

    def rename(self, newest: datetime, missing: int) -> None:
        """Send what is left of the head under another epoch, as its name is another machine's.

        ``missing`` points before the first that is left are given up. They and the losses that no
        batch has reported are skipped.
        """
        untold = self.dropped - self.reported + missing
        skipped = untold if self.acknowledged else untold + self.skipped
        before = self.sent_as
        self.sent_as = continuation(before, newest)
        self._come_after(before, self.acknowledged, skipped)
        self._start(self.passed)

    @property
    def answered(self) -> tuple[str, int]:
        """The last place that was answered, after its epoch."""
        if self.acknowledged:
            return self.sent_as, self.acknowledged
        return self.before_epoch, self.before_place

    def absorb(self, other: Chain, *, was_empty: bool, is_empty: bool) -> None:
        """Go on where ``other`` is, whose points were put behind this chain's.

        ``was_empty``: this had no points left. ``is_empty``: nor has the other, so that no place of
        them tells of its losses.
        """
        if was_empty and other.acknowledged:
            untold = self._untold()
            for name in self.__struct_fields__:
                setattr(self, name, getattr(other, name))
            self.head = self.sent_as  # its points are put here under that name
        else:
            untold = other._untold() if is_empty else 0 if other.acknowledged else other.skipped
            if other.acknowledged and not self.acknowledged:
                self.before_epoch, self.before_place = other.answered
            self.epoch, self.place = other.epoch, other.place
        self.lose(untold)

    def _untold(self) -> int:
        """Return the losses since the last answer, if no batch of this chain will report them."""
        if self.acknowledged:
            return self.passed - self.acknowledged + self.unseen
        return self.dropped + self.skipped
