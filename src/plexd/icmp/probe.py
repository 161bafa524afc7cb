"""Probes under way and just ended, found again by what an answer carries, and how each ends.

The end of a probe goes to the waiting ping, the peer's loss window and the counters.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plexd.icmp.errors import NoAnswerError, PingError, UndeliveredError
from plexd.icmp.roundtrip import round_trip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.icmp.counters import Counters
    from plexd.icmp.targets import Target

_SEQUENCES = 1 << 16
_REMEMBERED = 256
_NANO = 1e9


@dataclass(slots=True, eq=False)
class Probe:
    """One echo request and what becomes of it.

    ``rtt_nano`` is above 0 once it is answered.
    """

    target: Target
    sequence: int = -1
    payload: bytes = b""
    sent_nano: int = 0
    offset_nano: int = 0
    deadline: float = 0.0
    rtt_nano: int = 0
    _failure: PingError | None = None
    # Only made for a probe that is not over at once, for it costs as much as a system call.
    _waiter: asyncio.Future[None] | None = None

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


class Outcomes:
    """The probes of one socket, and the one place where they end."""

    def __init__(self, counters: Counters, timeout_seconds: float) -> None:
        self.probes = Probes()
        self.counters = counters
        self._timeout_seconds = timeout_seconds
        self._timeout_nano = timeout_seconds * _NANO

    def find(self, sequence: int, payload: bytes, host: str) -> Probe | None:
        """Return the probe that an answer belongs to; count the answer if there is none."""
        probe = self.probes.pending.get(sequence)
        if probe is not None and probe.payload == payload and probe.target.host == host:
            return probe
        self._count_stray(sequence, payload, host)
        return None

    def forget(self, probe: Probe) -> None:
        """End a probe whose ping was cancelled; it is neither answered nor lost."""
        if self.probes.pending.get(probe.sequence) is probe:
            self.probes.end(probe)
            self.counters.cancelled += 1

    def answered(self, probe: Probe, stamp: int, read: int, offset: int) -> int:
        """End ``probe`` with its round trip in nanoseconds, or as lost if that was too long."""
        counters = self.counters
        rtt, stepped = round_trip(probe.sent_nano, read, stamp, probe.offset_nano, offset)
        if stepped:
            counters.clock_steps += 1
        if rtt > self._timeout_nano:
            counters.late += 1
            self.expired(probe)
            return rtt
        delay = read - probe.sent_nano - rtt
        if delay > counters.largest_read_delay_nano:  # noqa: PLR1730  # max() is four times slower
            counters.largest_read_delay_nano = delay
        self.probes.end(probe)
        counters.answered += 1
        probe.target.window.add(lost=False)
        probe.answer(rtt)
        return rtt

    def _count_stray(self, sequence: int, payload: bytes, host: str) -> None:
        probe = self.probes.ended(sequence)
        if probe is None or probe.payload != payload or probe.target.host != host:
            self.counters.foreign += 1
        elif probe.rtt_nano:
            self.counters.duplicates += 1
        else:
            self.counters.late += 1

    def lose(self, probe: Probe, failure: PingError) -> None:
        """End a probe that went out without an answer."""
        self.probes.end(probe)
        self.counters.lost += 1
        probe.target.window.add(lost=True)
        probe.fail(failure)

    def refuse(self, probe: Probe, reason: str, cause: OSError | None = None) -> None:
        """Fail a probe that never went out."""
        self.counters.send_errors += 1
        probe.target.window.add(lost=True)
        failure = UndeliveredError(probe.target.host, reason)
        failure.__cause__ = cause
        probe.fail(failure)

    def expired(self, probe: Probe) -> None:
        """End a probe whose time is over."""
        reason = f"no answer within {self._timeout_seconds:g} s"
        self.lose(probe, NoAnswerError(probe.target.host, reason))
