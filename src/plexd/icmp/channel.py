"""One socket and the probes that go through it."""

from __future__ import annotations

import errno
import math
import os
import time
from typing import TYPE_CHECKING, TypeAlias

from plexd.icmp.errors import ClosedError, PacketError, UndeliveredError
from plexd.icmp.packet import (
    COOKIE_BYTES,
    PAYLOAD_BYTES,
    REPORT_SPACE,
    STAMP_SPACE,
    Ancillary,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
    parse_quote,
    parse_report,
    report_of,
    stamp_of,
)
from plexd.icmp.probe import Outcomes, Probe
from plexd.icmp.roundtrip import sample_clocks

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.icmp.counters import Counters
    from plexd.icmp.sockets import EchoSocket

Received: TypeAlias = tuple[bytes, Ancillary, int, tuple[str, int]]

_PACKET_BYTES = 128  # the longest IPv4 header, an echo of ours, and room to see that one is longer
_MSG_ERRQUEUE = 0x2000
_BATCH = 64
_MOST_BATCHES = 256  # more than the queue can hold
_MORE_TRIES = 2
_FINAL = frozenset({errno.EPERM, errno.EAGAIN, errno.ENOBUFS})  # about this send, no other
_PROMPT_NANO = 50_000
_SAMPLE_SECONDS = 0.001
_TOKEN_BYTES = PAYLOAD_BYTES - COOKIE_BYTES
_POOL_TOKENS = 256


class Channel:
    """Sends probes and finds out what became of each."""

    def __init__(
        self, echo: EchoSocket, counters: Counters, clock: Clock, timeout_seconds: float
    ) -> None:
        self._outcomes = Outcomes(counters, timeout_seconds)
        self.probes = self._outcomes.probes
        self.forget = self._outcomes.forget
        self._echo = echo
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._prompt = False
        self._offset_nano = 0
        self._sample_again = -math.inf
        self._payloads: list[bytes] = []

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._echo.sock.fileno()

    def drops(self) -> int:
        """Return how many answers the kernel threw away because the queue was full."""
        return self._echo.drops()

    def wake(self) -> None:
        """Read what has come; the event loop calls again as long as there is more."""
        if not self.read():
            self.read_reports()

    def close(self) -> None:
        """Close the socket and fail what is pending with `ClosedError`."""
        self._echo.sock.close()
        for probe in list(self._outcomes.probes.pending.values()):
            self._outcomes.forget(probe)
            probe.fail(ClosedError(probe.target.host, "the pinger is closed"))

    def send(self, probe: Probe) -> None:
        """Send ``probe``, or fail it with the kernel's reason.

        As long as answers come within 50 us, that is from this very machine, each is read right
        after its probe went out: that spares its waiter a turn of the event loop, and the queue
        stays empty however many probes are sent in a row.
        """
        if not self._admit(probe):
            return
        self._outcomes.counters.sent += 1
        if self._prompt:
            self._read_at_once(probe)
            if not probe.rtt_nano:  # older answers lay before its own, or it takes longer
                self.read()
            self._prompt = probe.rtt_nano > 0

    def read(self) -> int:
        """Read the answers that have arrived, one batch at most; return how many there were."""
        received: list[Received] = []
        receive, append = self._echo.sock.recvmsg, received.append
        for _ in range(_BATCH):
            try:
                append(receive(_PACKET_BYTES, STAMP_SPACE))
            except BlockingIOError:
                break
            except OSError:  # an error report's number; the report itself is in the other queue
                self.read_reports()
        if received:  # only now are the clocks sampled: no step before it goes unnoticed
            self._offset_nano, read = sample_clocks()
            for data, ancillary, _, address in received:
                self._handle(data, ancillary, address[0], read)
        return len(received)

    def _read_at_once(self, probe: Probe) -> None:
        """Read the answer to ``probe`` if it is there, or the one that lies before it.

        The answer to ``probe`` is measured with the latest sample of the clocks: even if a clock
        was stepped since then, the round trip is no longer than the few microseconds until now.
        """
        try:
            data, ancillary, _, address = self._echo.sock.recvmsg(_PACKET_BYTES, STAMP_SPACE)
        except OSError:  # not yet; or there is a report, for which the event loop wakes us
            return
        if data.endswith(probe.payload):
            read = time.monotonic_ns()
        else:
            self._offset_nano, read = sample_clocks()
        self._handle(data, ancillary, address[0], read)

    def read_reports(self) -> int:
        """Read the errors of routers and this kernel, one batch at most; return how many."""
        for count in range(_BATCH):
            try:
                quote, ancillary, _, origin = self._echo.sock.recvmsg(
                    _PACKET_BYTES, REPORT_SPACE, _MSG_ERRQUEUE
                )
            except OSError:  # the queue is empty
                return count
            try:
                self._handle_report(quote, ancillary, origin[0])
            except PacketError:
                self._outcomes.counters.foreign += 1
        return _BATCH

    def expire(self) -> None:
        """Read all that has arrived, then end the probes whose time is over."""
        for _ in range(_MOST_BATCHES):
            if not self.read():
                break
        for probe in self._outcomes.probes.due(self._clock.monotonic()):
            self._outcomes.expired(probe)

    def _admit(self, probe: Probe) -> bool:
        if not self._outcomes.probes.admit(probe):
            self._outcomes.refuse(probe, "more probes are under way than have a number")
            return False
        echo = self._echo
        probe.payload = payload = (self._payloads or self._more_payloads()).pop()
        packet = encode_echo(echo.request, echo.identifier, probe.sequence, payload)
        now = self._clock.monotonic()
        if now >= self._sample_again:
            self._sample_again = now + _SAMPLE_SECONDS
            self._offset_nano, _ = sample_clocks()
        probe.deadline = now + self._timeout_seconds
        probe.offset_nano = self._offset_nano
        try:
            self._transmit(probe, packet)
        except OSError as err:
            self._outcomes.probes.withdraw(probe)
            self._outcomes.refuse(probe, err.strerror or str(err), err)
            return False
        return True

    def _transmit(self, probe: Probe, packet: bytes) -> None:
        send, address = self._echo.sock.sendto, probe.target.socket_address
        probe.sent_nano = time.monotonic_ns()
        try:
            send(packet, address)
        except OSError as err:
            self._transmit_again(probe, packet, err)

    def _transmit_again(self, probe: Probe, packet: bytes, err: OSError) -> None:
        """Read the report about an earlier probe, which makes one send fail, and try again."""
        for _ in range(_MORE_TRIES):
            self.read_reports()
            if err.errno in _FINAL:
                break
            probe.sent_nano = time.monotonic_ns()
            try:
                self._echo.sock.sendto(packet, probe.target.socket_address)
            except OSError as again:
                err = again
            else:
                return
        raise err

    def _more_payloads(self) -> list[bytes]:
        cookie, pool = self._echo.cookie, os.urandom(_POOL_TOKENS * _TOKEN_BYTES)
        starts = range(0, len(pool), _TOKEN_BYTES)
        self._payloads = [cookie + pool[i : i + _TOKEN_BYTES] for i in starts]
        return self._payloads

    def _handle(self, data: bytes, ancillary: Ancillary, host: str, read: int) -> None:
        echo = self._echo
        try:
            offset = parse_ipv4_header(data) if echo.has_header else 0
            identifier, sequence, payload = parse_echo(data, echo.reply, offset)
        except PacketError:
            self._outcomes.counters.foreign += 1
            return
        if identifier != echo.identifier:
            self._outcomes.counters.foreign += 1
            return
        probe = self._outcomes.find(sequence, payload, host)
        if probe is not None:
            rtt = self._outcomes.answered(probe, stamp_of(ancillary), read, self._offset_nano)
            self._prompt = rtt < _PROMPT_NANO

    def _handle_report(self, quote: bytes, ancillary: Ancillary, host: str) -> None:
        _, reason = parse_report(report_of(ancillary))
        identifier, sequence, payload = parse_quote(quote, self._echo.request)
        probe = self._outcomes.probes.pending.get(sequence)
        if (
            probe is None
            or identifier != self._echo.identifier
            or probe.target.host != host
            or not probe.payload.startswith(payload)
        ):
            self._outcomes.counters.foreign += 1
            return
        self._outcomes.lose(probe, UndeliveredError(host, reason))
