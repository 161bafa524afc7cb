"""When each probe goes out.

A collection starts all its pings at once, and expects them to end within their timeout and a
little more. So:

- the first 128 probes of any tenth of a second go out at once;
- those beyond are spread over a tenth of a second, each peer at a place of its own (a hash of
  its id): no burst at 500 peers, and no ping waits for longer;
- once more than 1,000 wait, spreading them would only be a longer burst: they go out in bursts
  of 64, and everything else on the event loop, reading answers above all, has its turn after each.

A probe that was answered before the next one went out is no burst, and does not count; but no
turn of the event loop is used for sending longer than 40 ms.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from typing import TYPE_CHECKING

from plexd.background import cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plexd.clock import Clock
    from plexd.icmp.probe import Probe

SPREAD_SECONDS = 0.1
_AT_ONCE = 128
_SLOTS = 20
_CROWD = 1_000
_BURST = 64
_TURN_SECONDS = 0.04


class Pacer:
    """Hands probes to ``send``, each now or a little later; owns one task while any wait."""

    def __init__(self, send: Callable[[Probe], None], clock: Clock) -> None:
        self.waiting = 0
        self._send = send
        self._clock = clock
        self._wheel: list[deque[Probe]] = [deque() for _ in range(_SLOTS)]
        self._slot = 0
        self._credit = _AT_ONCE
        self._renewed = clock.monotonic()
        self._turn: float | None = None
        self._task: asyncio.Task[None] | None = None

    def submit(self, probe: Probe) -> None:
        """Send ``probe`` now if that makes no burst, else in its slot."""
        if self._may_send():
            self._send(probe)
            if not probe.rtt_nano:
                self._credit -= 1
            return
        self._wheel[zlib.crc32(probe.target.peer_id.encode()) % _SLOTS].append(probe)
        self.waiting += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="icmp pacer")

    def drain(self) -> Iterator[Probe]:
        """Yield the probes that wait; they are not sent any more."""
        for slot in self._wheel:
            while slot:
                self.waiting -= 1
                yield slot.popleft()

    async def aclose(self) -> None:
        """End the task."""
        if self._task is not None:
            await cancel(self._task)

    def _may_send(self) -> bool:
        now = self._clock.monotonic()
        if now - self._renewed >= SPREAD_SECONDS:
            self._renewed, self._credit = now, _AT_ONCE
        if self._turn is None:
            self._turn = now
            asyncio.get_running_loop().call_soon(self._end_turn)
        return self._credit > 0 and now - self._turn < _TURN_SECONDS

    def _end_turn(self) -> None:
        self._turn = None

    async def _run(self) -> None:
        crowded = False
        while self.waiting:
            crowded = crowded or self.waiting > _CROWD
            slot = self._wheel[self._slot]
            unanswered = 0
            while slot:
                unanswered += self._burst(slot)
                await self._clock.sleep(0)
            self._slot = (self._slot + 1) % _SLOTS
            if unanswered and not crowded:
                await self._clock.sleep(SPREAD_SECONDS / _SLOTS)

    def _burst(self, slot: deque[Probe]) -> int:
        """Send what is next in ``slot``; return how many of them are still under way."""
        unanswered = 0
        for _ in range(min(_BURST, len(slot))):
            probe = slot.popleft()
            self.waiting -= 1
            if not probe.is_abandoned:
                self._send(probe)
                unanswered += not probe.rtt_nano
        return unanswered
