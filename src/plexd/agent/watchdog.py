"""A watchdog over the event loop: a blocked loop is logged, and systemd is notified if it asks.

systemd gives a service with ``WatchdogSec=`` the socket ``NOTIFY_SOCKET`` and the timeout
``WATCHDOG_USEC``, and restarts it when no ``WATCHDOG=1`` came for that long (sd_notify(3),
sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from plexd.clock import Clock, SystemClock
from plexd.log_once import LogOnce

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping


_EVERY_SECONDS = 1.0
_SHORTEST_SECONDS = 0.01
_MOST_DIGITS = 20  # of 64 bits
# A busy machine delays a loop by some tenths of a second; nothing in the agent takes longer.
_TOLERATED_SECONDS = 2.0


class Watchdog:
    """Checks every second how late it is called, and calls ``notify`` each time.

    ``every_seconds`` is for a service manager that is less patient.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        notify: Callable[[], None] | None = None,
        every_seconds: float = _EVERY_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._every_seconds = every_seconds
        self._clock = clock or SystemClock()
        self._warnings = LogOnce(logger, "agent", clock=self._clock)
        self._notify = notify

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if self._notify is not None:
                self._notify()
            due = self._clock.monotonic() + self._every_seconds
            await self._clock.sleep(self._every_seconds)
            late = self._clock.monotonic() - due
            if late > _TOLERATED_SECONDS:
                self._warnings.warn("event loop blocked", "", seconds=round(late, 1))


def systemd_notifier(environ: Mapping[str, str]) -> Callable[[], None] | None:
    """The function that reports this process to systemd as alive; None where systemd has not asked.

    It has not asked this process if ``WATCHDOG_PID`` names another one. The function never raises
    or waits: a message that cannot be sent is left out.
    """
    mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if "WATCHDOG_USEC" not in environ or not mine or not _notify_address(environ):
        return None
    return partial(notify_systemd, environ, "WATCHDOG=1")


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """How many seconds apart systemd is notified: a second, or half of its timeout if that is less.

    Half is what sd_watchdog_enabled(3) recommends. It is ten milliseconds at least.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        return _EVERY_SECONDS
    return min(_EVERY_SECONDS, max(int(text) / 2e6, _SHORTEST_SECONDS))


def notify_systemd(environ: Mapping[str, str], state: str) -> None:
    """Report ``state``, such as ``READY=1``, to systemd if it started this process and listens.

    Never raises or waits: a message that cannot be sent is left out.
    """
    address = _notify_address(environ)
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
        sender.sendto(state.encode(), address)


def _notify_address(environ: Mapping[str, str]) -> str:
    """Return the socket to write to, empty if there is none that this program knows."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):  # a name outside the file system
        return "\0" + address[1:]
    return address if address.startswith("/") else ""
