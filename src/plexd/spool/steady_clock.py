"""The spool's own clock, by which the age of points is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd.spool.epoch import boot_id

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.spool.meta import Meta

# 2025-01-01. A machine without a clock of its own begins in 1970, or where it was switched off.
_EARLIEST_WALL_MS: Final = 1_735_689_600_000


class SteadyClock:
    """Continues where the last process left it; never goes back.

    While the process runs it follows the monotonic clock, so that a step of the wall clock makes
    nothing expire; so it does across processes of one boot of the machine. How long the machine was
    off only the wall clock knows, as far as it was set.
    """

    def __init__(self, clock: Clock, meta: Meta) -> None:
        self._clock = clock
        self._boot = boot_id()
        self._start = meta.steady_ms + max(0, self._away_ms(meta)) - self._monotonic_ms()

    def _away_ms(self, meta: Meta) -> int:
        away = self._monotonic_ms() - meta.monotonic_ms
        if self._boot and self._boot == meta.boot and away >= 0:
            return away
        then, now = meta.wall_ms, self._wall_ms()
        return now - then if min(then, now) > _EARLIEST_WALL_MS else 0

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _wall_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def now_ms(self) -> int:
        """Return milliseconds since the spool was made."""
        return self._start + self._monotonic_ms()

    def stamp(self, meta: Meta) -> None:
        """Write into ``meta`` what the next process continues from."""
        meta.steady_ms, meta.monotonic_ms = self.now_ms(), self._monotonic_ms()
        meta.wall_ms, meta.boot = self._wall_ms(), self._boot
