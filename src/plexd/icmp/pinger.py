"""ICMP echo to every peer through one socket per address family."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from plexd.background import cancel
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.icmp.channel import Channel
from plexd.icmp.counters import Counters, Statistics
from plexd.icmp.errors import ClosedError
from plexd.icmp.pacing import Pacer
from plexd.icmp.probe import Probe
from plexd.icmp.sockets import open_socket
from plexd.icmp.targets import NEEDED_PROBES, WINDOW_PROBES, Peers

if TYPE_CHECKING:
    from collections.abc import Callable


class ICMPPinger(AsyncClosing):
    """A `Pinger`, and the loss of each peer's latest probes; an async context manager.

    ``resolve`` names the IPv4 or IPv6 address of a peer and raises `LookupError` for one it does
    not know; it is called at each ping. Any number of pings may be under way, several of one peer
    as well, all on the event loop of the first one. The sockets are opened with the first ping
    that needs them; see `plexd.icmp.sockets` for the rights this takes.

    A probe goes out within a tenth of a second of its ping (`plexd.icmp.pacing`), and its
    ``timeout`` counts from then. An answer counts once, and only if identifier, sequence, a
    random token and the sender's address are those of a probe under way. Its round trip is taken
    from the kernel's time stamp, so that a busy event loop does not lengthen it
    (`plexd.icmp.roundtrip`).
    """

    def __init__(
        self,
        resolve: Callable[[str], str],
        *,
        timeout: timedelta = timedelta(seconds=2),
        loss_window: int = WINDOW_PROBES,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if loss_window < NEEDED_PROBES:
            raise ValueError(f"loss_window must be at least {NEEDED_PROBES}, not {loss_window}")
        self._peers = Peers(resolve, loss_window)
        self._timeout_seconds = timeout.total_seconds()
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("plexd.icmp")
        self._counters = Counters()
        self._channels: dict[int, Channel] = {}
        self._pacer = Pacer(self._send, self._clock)
        self._expiry: asyncio.Task[None] | None = None
        self._drops_of_closed = 0
        self._closed = False

    async def ping(self, peer_id: str) -> int:
        """Return one round trip in nanoseconds, above 0; raise `PingError` with the reason if none.

        A cancelled ping leaves nothing behind: its probe counts neither as lost nor as answered.
        """
        if self._closed:
            raise ClosedError(peer_id, "the pinger is closed")
        target = self._peers.find(peer_id)
        channel = self._channels.get(target.family) or self._open(target.family)
        probe = Probe(target)
        self._pacer.submit(probe)
        if probe.rtt_nano:
            return probe.rtt_nano
        try:
            return await probe.outcome()
        except asyncio.CancelledError:
            channel.forget(probe)
            raise

    def loss(self, peer_id: str) -> float:
        """Return the lost share of the peer's latest probes in percent; -1 if it is not known.

        They are ``loss_window``, 20 by default, and at least eight must have ended. The first
        answer after an outage of eight or more begins the window again.

        Probes under way are not counted, nor are pings that were cancelled or never had a
        socket or an address to go out by. What the kernel refuses to send is lost.
        """
        return self._peers.loss(peer_id)

    def statistics(self) -> Statistics:
        """Return what has happened since the pinger was made."""
        channels = self._channels.values()
        return Statistics(
            **asdict(self._counters),
            in_flight=sum(len(channel.probes.pending) for channel in channels),
            waiting=self._pacer.waiting,
            receive_drops=self._drops_of_closed + sum(channel.drops() for channel in channels),
        )

    async def aclose(self) -> None:
        """Close the sockets; pings under way fail with `ClosedError`. Idempotent."""
        self._closed = True
        for probe in self._pacer.drain():
            probe.fail(ClosedError(probe.target.host, "the pinger is closed"))
        while self._channels:
            _, channel = self._channels.popitem()
            self._close(channel)
        await self._pacer.aclose()
        if self._expiry is not None:
            await cancel(self._expiry)

    def _open(self, number: int) -> Channel:
        family = socket.AddressFamily(number)
        echo = open_socket(family)
        channel = Channel(echo, self._counters, self._clock, self._timeout_seconds)
        asyncio.get_running_loop().add_reader(channel.fileno(), channel.wake)
        self._channels[number] = channel
        kind = "raw" if echo.is_raw else "datagram"
        extra = {"component": "icmp", "family": family.name, "kind": kind}
        self._logger.debug("icmp socket opened", extra=extra)
        return channel

    def _close(self, channel: Channel) -> None:
        asyncio.get_running_loop().remove_reader(channel.fileno())
        self._drops_of_closed += channel.drops()
        channel.close()

    def _send(self, probe: Probe) -> None:
        self._channels[probe.target.family].send(probe)
        if not probe.rtt_nano and (self._expiry is None or self._expiry.done()):
            self._expiry = asyncio.create_task(self._expire(), name="icmp expiry")

    async def _expire(self) -> None:
        """Run one timer for all probes: they are due in the order in which they were sent."""
        while (deadline := self._first_deadline()) is not None:
            await self._clock.sleep(deadline - self._clock.monotonic())
            for channel in self._channels.values():
                channel.expire()

    def _first_deadline(self) -> float | None:
        found = [channel.probes.first_deadline() for channel in self._channels.values()]
        return min((deadline for deadline in found if deadline is not None), default=None)
