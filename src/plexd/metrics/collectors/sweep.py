"""Pinging many peers side by side."""

from __future__ import annotations

import asyncio
from operator import length_hint
from typing import TYPE_CHECKING, Self

from plexd.background import cancel
from plexd.closing import AsyncClosing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.metrics.ports import Pinger

UNREACHABLE = -1


class Sweep(AsyncClosing):
    """One ping to each of ``peers``, all side by side; an async context manager.

    ``rtts`` fills in as answers come, at the peers' positions: nanoseconds, -1 for a failed
    ping, None while under way. ``failures`` lists the failed peers and why, in the order it
    happened. Leaving the context cancels what is still under way and waits for it to end.

    A task costs far more than a ping that does not have to wait, so a worker continues with the
    next peer until a ping suspends it, and only then another worker starts.
    """

    def __init__(self, pinger: Pinger, peers: Sequence[str]) -> None:
        self.peers = tuple(peers)
        self.rtts: list[int | None] = [None] * len(self.peers)
        self.failures: list[tuple[str, BaseException]] = []
        self._pinger = pinger
        self._queue = iter(range(len(self.peers)))
        self._awaited = -1
        self._arrival: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self.peers:
            self._task = asyncio.create_task(self._run(), name="sweep")
            self._task.add_done_callback(lambda _: self._arrived())
        return self

    async def aclose(self) -> None:
        if self._task is not None:
            await cancel(self._task)

    async def result(self, position: int) -> int:
        """The round trip to the peer at ``position``, once it is known.

        Raises what ended the pings before: more than an `Exception`, which is a failed ping.
        """
        while (rtt := self.rtts[position]) is None:
            if self._task is not None and self._task.done():
                self._task.result()
            self._awaited = position
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return rtt

    def finished(self, position: int) -> Iterator[tuple[str, int]]:
        """Yield the peers from ``position`` on whose round trip is known by now."""
        for peer_id, rtt in zip(self.peers[position:], self.rtts[position:], strict=True):
            if rtt is not None:
                yield peer_id, rtt

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            width = 1
            while left := length_hint(self._queue):
                for _ in range(min(width, left)):
                    group.create_task(self._work())
                width *= 2
                await asyncio.sleep(0)

    async def _work(self) -> None:
        peers, rtts, ping = self.peers, self.rtts, self._pinger.ping
        for position in self._queue:
            try:
                rtts[position] = _checked(await ping(peers[position]))
            except asyncio.CancelledError as err:
                if _is_cancelled():
                    raise
                self._fail(position, err)
            except Exception as err:  # noqa: BLE001  # whatever a pinger raises means "no answer"
                self._fail(position, err)
            if position == self._awaited:
                self._arrived()

    def _fail(self, position: int, err: BaseException) -> None:
        self.failures.append((self.peers[position], err))
        self.rtts[position] = UNREACHABLE

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def _is_cancelled() -> bool:
    """Whether the running task was asked to stop, rather than a ping cancelling itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _checked(rtt: object) -> int:
    if type(rtt) is not int or rtt < 0:
        raise TypeError(f"the pinger answered {rtt!r}, which is no round trip")
    return rtt
