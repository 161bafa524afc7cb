"""What a receiver knows of one node, by docs/spec/delivery.md and apart from the server's code."""

from __future__ import annotations

from plexd.api import BatchName, Predecessor, is_continuation

__all__ = ["Marks"]


class _Epoch:
    def __init__(self) -> None:
        self.upto = 0
        self.missing = 0
        self.dropped = 0
        self.before = 0

    @property
    def lost(self) -> int:
        return max(self.missing, self.dropped) + self.before


class Marks:
    """How far each epoch of a node has come, and what is missing.

    ``is_lenient``: an epoch may come after one that is unknown, as after damage.
    ``may_begin_again``: and after nothing, as when everything is lost after a lost answer.
    ``is_begun_again``: one came after nothing, which is a loss of unknown size.
    """

    def __init__(self) -> None:
        self.is_lenient = self.may_begin_again = self.is_begun_again = False
        self._epochs: dict[str, _Epoch] = {}

    @property
    def lost(self) -> int:
        """Points that are missing, as far as the batches received show it."""
        return sum(epoch.lost for epoch in self._epochs.values())

    def __len__(self) -> int:
        return len(self._epochs)

    def receive(self, name: BatchName, after: Predecessor, dropped: int) -> int:
        """Receive a batch, and return how many of its first points were known.

        Raises `AssertionError` for a predecessor that cannot be.
        """
        if name.epoch not in self._epochs:
            self._begin(name, after)
        epoch = self._epochs[name.epoch]
        known = max(0, min(name.points, epoch.upto - name.first + 1))
        epoch.missing += max(0, name.first - epoch.upto - 1)
        epoch.dropped = max(epoch.dropped, dropped)
        epoch.upto = max(epoch.upto, name.last)
        return known

    def reject(self, name: BatchName, after: Predecessor, dropped: int) -> None:
        """Receive a batch that is refused for good: its points are missing."""
        known = self.receive(name, after, dropped)
        self._epochs[name.epoch].missing += name.points - known

    def _begin(self, name: BatchName, after: Predecessor) -> None:
        begun, before = _Epoch(), self._epochs.get(after.epoch)
        if not self.is_lenient:
            begins = bool(after.epoch) or not self._epochs or self.may_begin_again
            assert begins, f"{name} comes after nothing"
            assert before is not None or not after.epoch, f"{after} is unknown"
            assert before is None or before.upto <= after.place, f"{after} is behind what came"
        self.is_begun_again |= bool(self._epochs) and not after.epoch
        self._epochs[name.epoch] = begun
        if before is not None and is_continuation(name.epoch, after.epoch):
            begun.upto = after.place
            begun.before = max(0, after.skipped - (name.first - 1 - after.place))
        else:
            lacking = after.place - before.upto if before is not None else 0
            begun.before = after.skipped + max(0, lacking)
