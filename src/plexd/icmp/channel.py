"""One socket and the probes that go through it."""

from __future__ import annotations

import errno
import math
import os
import struct
import time
from socket import SOL_SOCKET
from typing import TYPE_CHECKING, TypeAlias

from plexd.icmp.errors import ClosedError, PacketError, UndeliveredError
from plexd.icmp.ledger import Ledger
from plexd.icmp.packet import (
    COOKIE_BYTES,
    PAYLOAD_BYTES,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
    parse_quote,
)
from plexd.icmp.reports import parse_report
from plexd.icmp.roundtrip import sample_clocks
from plexd.icmp.sockets import REPORTS, SO_TIMESTAMPNS

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.icmp.probe import Probe
    from plexd.icmp.sockets import EchoSocket
    from plexd.icmp.statistics import Counters

__all__ = ["Channel"]

Ancillary: TypeAlias = list[tuple[int, int, bytes]]
Received: TypeAlias = tuple[bytes, Ancillary, int, tuple[str, int]]

_PACKET_BYTES = 128  # the longest IPv4 header, an echo of ours, and room to see that one is longer
_STAMP = struct.Struct("@ll")  # struct timespec
_STAMP_SPACE = 64
_REPORT_SPACE = 256
_MSG_ERRQUEUE = 0x2000
_BATCH = 64
_MOST_BATCHES = 256  # more than the queue can hold
_MORE_TRIES = 2
_FINAL = frozenset({errno.EPERM, errno.EAGAIN, errno.ENOBUFS})  # about this send, no other
_PROMPT_NANO = 50_000
_SAMPLE_SECONDS = 0.005
_TOKEN_BYTES = PAYLOAD_BYTES - COOKIE_BYTES
_POOL_TOKENS = 256


class Channel:
    """Sends probes, and finds out what became of each."""

    def __init__(
        self, echo: EchoSocket, counters: Counters, clock: Clock, timeout_seconds: float
    ) -> None:
        self._ledger = Ledger(counters, timeout_seconds)
        self.probes = self._ledger.probes
        self.forget = self._ledger.forget
        self._echo = echo
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._prompt = False
        self._offset_nano = 0
        self._sample_again = -math.inf
        self._tokens: list[bytes] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._echo.sock.fileno()

    def drops(self) -> int:
        """How many answers the kernel threw away because the queue was full."""
        return self._echo.drops()

    def wake(self) -> None:
        """Take in what has come; the event loop calls again as long as there is more."""
        if not self.read():
            self.read_reports()

    def close(self) -> None:
        """Close the socket and fail what is pending with `ClosedError`."""
        self._echo.sock.close()
        for probe in list(self._ledger.probes.pending.values()):
            self._ledger.forget(probe)
            probe.fail(ClosedError(probe.target.host, "the pinger is closed"))

    def send(self, probe: Probe) -> None:
        """Send ``probe``, or fail it with what the kernel says.

        As long as answers come within 50 us, that is from this very machine, each is read right
        after its probe went out: that spares its waiter a turn of the event loop, and the queue
        stays empty however many probes are sent in a row.
        """
        if not self._admit(probe):
            return
        self._ledger.counters.sent += 1
        if self._prompt:
            self._prompt = bool(self.read(1)) and probe.answered

    def read(self, most: int = _BATCH) -> int:
        """Take in the answers that have arrived, at most that many; how many there were."""
        received: list[Received] = []
        receive, append = self._echo.sock.recvmsg, received.append
        for _ in range(most):
            try:
                append(receive(_PACKET_BYTES, _STAMP_SPACE))
            except BlockingIOError:
                break
            except OSError:  # an error report's number; the report itself is in the other queue
                self.read_reports()
        if received:  # only now are the clocks sampled: no step before it goes unnoticed
            self._offset_nano, read = sample_clocks()
            for data, ancillary, _, address in received:
                self._take(data, ancillary, address[0], read)
        return len(received)

    def read_reports(self) -> int:
        """Take in what routers and this kernel reported, one batch at most; how many."""
        for count in range(_BATCH):
            try:
                quote, ancillary, _, origin = self._echo.sock.recvmsg(
                    _PACKET_BYTES, _REPORT_SPACE, _MSG_ERRQUEUE
                )
            except OSError:  # the queue is empty
                return count
            try:
                self._report(quote, ancillary, origin[0])
            except PacketError:
                self._ledger.counters.foreign += 1
        return _BATCH

    def expire(self) -> None:
        """End the probes whose time is over, once all that has arrived was read."""
        for _ in range(_MOST_BATCHES):
            if not self.read():
                break
        for probe in self._ledger.probes.due(self._clock.monotonic()):
            self._ledger.expired(probe)

    def _admit(self, probe: Probe) -> bool:
        if not self._ledger.probes.admit(probe):
            self._ledger.refuse(probe, "more probes are under way than have a number")
            return False
        echo = self._echo
        probe.payload = payload = echo.cookie + self._token()
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
            self._ledger.probes.withdraw(probe)
            self._ledger.refuse(probe, err.strerror or str(err), err)
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
        """A report about an earlier probe makes the next send fail once: read it and try again."""
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

    def _token(self) -> bytes:
        if not self._tokens:
            pool = os.urandom(_POOL_TOKENS * _TOKEN_BYTES)
            self._tokens = [pool[i : i + _TOKEN_BYTES] for i in range(0, len(pool), _TOKEN_BYTES)]
        return self._tokens.pop()

    def _take(self, data: bytes, ancillary: Ancillary, host: str, read: int) -> None:
        echo = self._echo
        try:
            offset = parse_ipv4_header(data) if echo.has_header else 0
            identifier, sequence, payload = parse_echo(data, echo.reply, offset)
        except PacketError:
            self._ledger.counters.foreign += 1
            return
        if identifier != echo.identifier:
            self._ledger.counters.foreign += 1
            return
        probe = self._ledger.find(sequence, payload, host)
        if probe is not None:
            rtt = self._ledger.answered(probe, _stamp(ancillary), read, self._offset_nano)
            self._prompt = rtt < _PROMPT_NANO

    def _report(self, quote: bytes, ancillary: Ancillary, host: str) -> None:
        _, reason = parse_report(_reported(ancillary))
        identifier, sequence, payload = parse_quote(quote, self._echo.request)
        probe = self._ledger.probes.pending.get(sequence)
        if (
            probe is None
            or identifier != self._echo.identifier
            or probe.target.host != host
            or not probe.payload.startswith(payload)
        ):
            self._ledger.counters.foreign += 1
            return
        self._ledger.lose(probe, UndeliveredError(host, reason))


def _reported(ancillary: Ancillary) -> bytes:
    return next((data for level, kind, data in ancillary if (level, kind) in REPORTS), b"")


def _stamp(ancillary: Ancillary) -> int:
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and level == SOL_SOCKET:
            seconds, nanoseconds = _STAMP.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0
