"""Probes under way and just ended, found again by what an answer carries."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.icmp.errors import PingError
    from plexd.icmp.targets import Target

_SEQUENCES = 1 << 16
_REMEMBERED = 256


class Probe:
    """One echo request and what becomes of it.

    ``rtt_nano`` is above 0 once it is answered.
    """

    __slots__ = (
        "_failure",
        "_waiter",
        "deadline",
        "offset_nano",
        "payload",
        "rtt_nano",
        "sent_nano",
        "sequence",
        "target",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.sequence = -1
        self.payload = b""
        self.sent_nano = 0
        self.offset_nano = 0
        self.deadline = 0.0
        self.rtt_nano = 0
        self._failure: PingError | None = None
        # Only made for a probe that is not over at once, for it costs as much as a system call.
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether the ping that waited for it was cancelled."""
        return self._waiter is not None and self._waiter.cancelled()

    async def outcome(self) -> int:
        """Return the round trip once it is known; raise the `PingError` if there is none."""
        if not self.rtt_nano and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        return self.rtt_nano

    def answer(self, rtt_nano: int) -> None:
        """Set the round trip and wake the waiting ping."""
        self.rtt_nano = rtt_nano
        if self._waiter is not None:
            self._wake(self._waiter)

    def fail(self, failure: PingError) -> None:
        """Set the reason why there is no round trip, and wake the waiting ping."""
        self._failure = failure
        if self._waiter is not None:
            self._wake(self._waiter)

    @staticmethod
    def _wake(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)


class Probes:
    """The probes of one socket, by sequence number.

    Those that have ended are remembered for a while, in two generations, so that late answers
    and duplicates can be distinguished from forged ones: at least the latest 256 of them, or as
    many as are under way at once.
    """

    def __init__(self) -> None:
        self.pending: dict[int, Probe] = {}
        self._ended: dict[int, Probe] = {}
        self._ended_before: dict[int, Probe] = {}
        self._remembered = _REMEMBERED
        self._next = secrets.randbelow(_SEQUENCES)

    def admit(self, probe: Probe) -> bool:
        """Give ``probe`` a sequence number of its own; False if all are in use."""
        if len(self.pending) == _SEQUENCES:
            return False
        sequence = self._next
        while sequence in self.pending:
            sequence = (sequence + 1) % _SEQUENCES
        self._next = (sequence + 1) % _SEQUENCES
        probe.sequence = sequence
        self.pending[sequence] = probe
        return True

    def withdraw(self, probe: Probe) -> None:
        """Forget a pending probe that was never sent."""
        del self.pending[probe.sequence]

    def end(self, probe: Probe) -> None:
        """Move a pending probe to those that have ended."""
        if len(self._ended) >= self._remembered:
            self._remembered = max(_REMEMBERED, len(self.pending))
            self._ended_before, self._ended = self._ended, {}
        del self.pending[probe.sequence]
        self._ended[probe.sequence] = probe

    def ended(self, sequence: int) -> Probe | None:
        """Return the latest remembered probe of that number, if it has ended."""
        return self._ended.get(sequence) or self._ended_before.get(sequence)

    def due(self, now: float) -> Iterator[Probe]:
        """Yield the pending probes whose deadline has come, oldest first."""
        for probe in list(self.pending.values()):
            if probe.deadline > now:
                return
            yield probe

    def first_deadline(self) -> float | None:
        """Return when the oldest pending probe is due."""
        return next((probe.deadline for probe in self.pending.values()), None)
