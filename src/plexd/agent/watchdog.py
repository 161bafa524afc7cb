"""Whether the event loop still turns: told in the log, and to systemd's watchdog if it asks.

systemd hands a service with ``WatchdogSec=`` the socket ``NOTIFY_SOCKET`` and the patience
``WATCHDOG_USEC``, and restarts it when no ``WATCHDOG=1`` came for that long (sd_notify(3),
sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd.log_once import LogOnce

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from plexd.clock import Clock

__all__ = ["LoopWatch", "watchdog"]

_EVERY_SECONDS = 1.0
# A busy machine delays a loop by some tenths of a second; nothing in the agent takes longer.
_TOLERATED_SECONDS = 2.0


class LoopWatch:
    """Looks once a second how late it is called, and calls ``still_alive`` each time."""

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        still_alive: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._warnings = LogOnce(logger, "agent", clock=self._clock)
        self._still_alive = still_alive

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if self._still_alive is not None:
                self._still_alive()
            due = self._clock.monotonic() + _EVERY_SECONDS
            await self._clock.sleep(_EVERY_SECONDS)
            late = self._clock.monotonic() - due
            if late > _TOLERATED_SECONDS:
                self._warnings.warn("event loop blocked", "", seconds=round(late, 1))


def watchdog(environ: Mapping[str, str]) -> Callable[[], None] | None:
    """Tells systemd that this process is alive; None where nobody wants to know.

    The watchdog is another process's when ``WATCHDOG_PID`` names one. Never raises nor waits: a
    message that cannot be sent is left out.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if "WATCHDOG_USEC" not in environ or not mine or address[:1] not in {"/", "@"}:
        return None
    if address.startswith("@"):  # a name outside the file system
        address = "\0" + address[1:]

    def notify() -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto(b"WATCHDOG=1", address)

    return notify
