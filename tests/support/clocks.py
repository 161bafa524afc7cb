"""Clocks that run faster than the machine's or at another date, for tests of a real program."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexd.clock import Clock

__all__ = ["DatedClock", "HurriedClock"]


class HurriedClock:
    """A `Clock` on which ``factor`` seconds pass within one: intervals and backoffs shrink."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        # Processes of one boot share the beginning: another factor must not seem like another day.
        self._start = time.monotonic()

    def now(self) -> datetime:
        """Return the machine's time: stamps need not be faster."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self._start + (time.monotonic() - self._start) * self._factor

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        return asyncio.timeout(seconds / self._factor)


class DatedClock:
    """A `Clock` that runs as the machine's, on from a moment of another day."""

    def __init__(self, start: datetime) -> None:
        self._ahead = start - datetime.now(UTC)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


if TYPE_CHECKING:
    _: type[Clock] = HurriedClock
    _dated: type[Clock] = DatedClock
