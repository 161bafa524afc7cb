"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from plexd.clock import Clock

# At most so many turns of the event loop are given to tasks that a timer woke. The pipeline's
# longest chain, from a tick to an acknowledged report, needs under thirty.
_MOST_TURNS = 100
# In the first of these turns a socket may still become readable by what was just written.
_QUIET_TURNS = 2


class ManualClock:
    """A `Clock` whose time passes only in `advance`; the wall clock can be stepped as well.

    Timers fire one by one in their order, and tasks come to rest in between, so that what a test
    sees does not depend on how fast the machine is.
    """

    def __init__(self, start: datetime = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)) -> None:
        self._wall = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._older_threads = frozenset(threading.enumerate())

    def now(self) -> datetime:
        """The start, plus what was advanced and stepped."""
        return self._wall + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed

    def step(self, by: timedelta) -> None:
        """Step the wall clock by ``by``; the monotonic clock is not affected."""
        self._wall += by

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved time on by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        due = asyncio.Event()
        self._at(seconds, due.set)
        await due.wait()

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[object]:
        """Cancel the body and raise `TimeoutError` once time has moved on by ``seconds``."""
        now = asyncio.get_running_loop().time
        over = False
        async with asyncio.timeout(None if seconds > 0 else 0) as scope:

            def expire() -> None:
                if not over:
                    scope.reschedule(now())

            self._at(seconds, expire)
            try:
                yield scope
            finally:
                over = True

    def _at(self, seconds: float, fire: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (self._elapsed + seconds, next(self._order), fire))

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, firing what is due on the way."""
        target = self._elapsed + seconds
        await self._let_tasks_rest()
        while self._timers and self._timers[0][0] <= target:
            due, _, fire = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, due)
            fire()
            await self._let_tasks_rest()
        self._elapsed = target
        await self._let_tasks_rest()

    async def _let_tasks_rest(self) -> None:
        quiet = 0
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._nothing_is_ready() else 0
            if quiet == _QUIET_TURNS:
                return

    def _nothing_is_ready(self) -> bool:
        """Whether the running task is the only one with work; False if that cannot be known.

        A thread that was started since may have work for the event loop at any time. asyncio has
        no public way to ask for the rest.
        """
        ready = getattr(asyncio.get_running_loop(), "_ready", True)
        return not ready and self._older_threads.issuperset(threading.enumerate())


if TYPE_CHECKING:
    _: type[Clock] = ManualClock
