"""The end of each probe: it goes to the waiting ping, the peer's loss window and the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.icmp.errors import NoAnswerError, PingError, UndeliveredError
from plexd.icmp.probe import Probe, Probes
from plexd.icmp.roundtrip import round_trip

if TYPE_CHECKING:
    from plexd.icmp.counters import Counters

_NANO = 1e9


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
