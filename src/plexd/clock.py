"""Time as a port: what waits or stamps uses a `Clock`, so that tests can move time.

Intervals and deadlines run on the monotonic clock, so a step of the wall clock does not change
them; the wall clock only stamps points.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class Clock(Protocol):
    """The time of day, a monotonic count of seconds, and ways to wait on the latter."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC. It may step in either direction."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. It never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` on the monotonic clock; for 0, once others had their turn."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context whose body is cancelled after ``seconds`` and then raises `TimeoutError`."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """`time.monotonic`, which stops while the machine is suspended."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


if TYPE_CHECKING:
    _: type[Clock] = SystemClock
