"""Runs the simulated nodes: they report the past first, then every reading when it is due."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from plexd.api import BatchName, MetricBatch, MetricPoint, Predecessor
from plexd_server.simulate.readings import read_node
from plexd_server.simulate.world import HOLE, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.clock import Clock
    from plexd_server.simulate.identities import SimulatedIdentity
    from plexd_server.simulate.uplink import Uplink

_PAST_STEP_SECONDS: Final = 30.0
_PAST_BATCH: Final = 1000
_BATCH: Final = 100
_WORKERS: Final = 16


class Plan(Struct, frozen=True):
    """How often each node reads its peers, and how many seconds of the past it reports first."""

    interval_seconds: float = 15.0
    past_seconds: float = 0.0


class Simulation:
    """Reports for all nodes of a world until cancelled.

    ``past_reported`` is set once the past is reported; ``late_seconds`` is how late the last
    reading was.
    """

    def __init__(
        self,
        plan: Plan,
        world: World,
        identities: Sequence[SimulatedIdentity],
        uplink: Uplink,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._world = world
        self._identities = identities
        self._names = [identity.node_id for identity in identities]
        self._epochs = [secrets.token_hex(16) for _ in identities]
        self._places = Counter[int]()
        self._dropped = Counter[int]()
        self._uplink = uplink
        self._clock = clock
        self._start = clock.now()
        self._began = clock.monotonic()
        self.past_reported = asyncio.Event()
        self.late_seconds = 0.0

    async def run(self) -> None:
        """Report the past, then at every interval. Raises `SimulationError`.

        A few workers share the nodes: each sends the batches of its nodes in order.
        """
        workers = min(_WORKERS, self._world.nodes)
        shares = [range(first, self._world.nodes, workers) for first in range(workers)]
        async with asyncio.TaskGroup() as past:
            for nodes in shares:
                past.create_task(self._report_past(nodes))
        self.past_reported.set()
        async with asyncio.TaskGroup() as present:
            for nodes in shares:
                present.create_task(self._report(nodes))

    async def _report_past(self, nodes: range) -> None:
        steps = int(self._plan.past_seconds / _PAST_STEP_SECONDS)
        moments = [-_PAST_STEP_SECONDS * step for step in range(steps, 0, -1)]
        for node in nodes:
            before, after = HOLE.get(node, (0.0, 0.0))
            dropped = [at for at in moments if before < at < after]
            await self._send_readings(node, [at for at in moments if at <= before])
            kept = [at for at in moments if at >= after and at > before]
            await self._send_readings(node, kept, dropped=len(dropped) * self._size(node))

    async def _send_readings(
        self, node: int, moments: Sequence[float], *, dropped: int = 0
    ) -> None:
        batch: list[MetricPoint] = []
        for at in moments:
            if self._world.is_silent(node, at):
                break
            batch += self._read(node, at)
            if len(batch) >= _PAST_BATCH:
                await self._send(node, batch, dropped)
                batch, dropped = [], 0
        if batch:
            await self._send(node, batch, dropped)

    async def _report(self, nodes: range) -> None:
        """Have every node report at its own time of each interval, so that they are spread."""
        for interval in count():
            for node in nodes:
                due = self._plan.interval_seconds * (interval + node / self._world.nodes)
                await self._clock.sleep(self._began + due - self._clock.monotonic())
                at = self._clock.monotonic() - self._began
                self.late_seconds = at - due
                if not self._world.is_silent(node, at):
                    await self._report_once(node, at)

    async def _report_once(self, node: int, at: float) -> None:
        points = self._read(node, at)
        for first in range(0, len(points), _BATCH):
            await self._send(node, points[first : first + _BATCH], 0)

    async def _send(self, node: int, points: Sequence[MetricPoint], dropped: int) -> None:
        """Send points; the ``dropped`` ones before them have places as well."""
        self._dropped[node] += dropped
        self._places[node] += dropped
        name = BatchName(self._epochs[node], self._places[node] + 1, len(points))
        self._places[node] += len(points)
        batch = MetricBatch(points, name=name, dropped=self._dropped[node], after=Predecessor())
        await self._uplink.send(node, self._identities[node], batch)

    def _read(self, node: int, at: float) -> list[MetricPoint]:
        return read_node(self._world, node, self._names, self._start, at)

    def _size(self, node: int) -> int:
        return 2 + 2 * len(self._world.peers(node))
