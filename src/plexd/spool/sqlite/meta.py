"""What a spool knows about its points as a whole: how many wait, and what became of the rest."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

LOSSES = ("refused", "evicted", "expired", "damaged")


class Meta(Struct):
    """The row of ``meta``. Points are counted since the spool was made.

    Attributes:
        version: transactions committed.
        epoch: what batches are sealed under from now on.
        seq: the number of the last batch that was sealed under it.
        told: of all losses, those that an accepted batch has reported.
        head_epoch: with ``head_seq`` the batch that was handed out with a loss to report.
        head_dropped: that loss.
        steady_ms: the spool's own clock at the last commit, in milliseconds.
        wall_ms: the wall clock then, since 1970.
    """

    version: int = 0
    epoch: str = ""
    seq: int = 0
    appended: int = 0
    acknowledged: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0
    damaged: int = 0
    told: int = 0
    head_epoch: str = ""
    head_seq: int = 0
    head_dropped: int = 0
    steady_ms: int = 0
    wall_ms: int = 0

    @property
    def lost(self) -> int:
        """Points that will never be delivered."""
        return self.refused + self.evicted + self.expired + self.damaged

    @property
    def waiting(self) -> int:
        """Points that are still to be delivered."""
        return self.appended - self.acknowledged - self.lost

    def count(self, reason: str, points: int) -> None:
        """Add ``points`` to the losses for ``reason``."""
        setattr(self, reason, getattr(self, reason) + points)

    def digest(self) -> bytes:
        """Return BLAKE2b of the values, in their order, as a JSON array."""
        text = msgspec.json.encode(msgspec.structs.astuple(self))
        return hashlib.blake2b(text, digest_size=16, person=b"plexd.meta").digest()
