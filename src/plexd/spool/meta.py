"""What a spool knows about its points as a whole: how many wait, and what became of the rest."""

from __future__ import annotations

import hashlib
from typing import Self

import msgspec
from msgspec import Struct, field

from plexd.spool.chain import Chain
from plexd.spool.port import LOSSES


class Meta(Struct):
    """The content of ``meta``, member by member as in ``docs/spec/spool.md``."""

    version: int = 0
    appended: int = 0
    acknowledged: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0
    damaged: int = 0
    clashed: int = 0
    steady_ms: int = 0
    wall_ms: int = 0
    monotonic_ms: int = 0
    boot: str = ""
    absorbed: str = ""
    chain: Chain = field(default_factory=Chain)

    @property
    def lost(self) -> int:
        """Points that will never be delivered."""
        return sum(getattr(self, reason) for reason in LOSSES)

    @property
    def waiting(self) -> int:
        """Points that are still to be delivered."""
        return self.appended - self.acknowledged - self.lost

    def count(self, reason: str, points: int) -> None:
        """Add ``points`` to the account called ``reason``."""
        setattr(self, reason, getattr(self, reason) + points)

    def encode(self) -> tuple[bytes, bytes]:
        """Return it as JSON, and the digest of that."""
        body = msgspec.json.encode(self)
        return body, _digest(body)

    @classmethod
    def decode(cls, body: object, digest: object) -> Self | None:
        """Return what was written; None if these bytes are not."""
        if not isinstance(body, bytes) or _digest(body) != digest:
            return None
        try:
            return msgspec.json.decode(body, type=cls)
        except msgspec.DecodeError:
            return None


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16, person=b"plexd.meta").digest()
