"""The agent's pipeline as a program that may be killed: real manager, client and spool.

Only the collector is made up (see `faults.numbered`), and the clock is hurried so that a collect
interval of five seconds passes in milliseconds. After each append has returned, the numbers of
its points are written to a file: from then on the agent has promised to deliver them, but where
its spool says that it is degraded. What it owes for as long as it lives is in a file of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from isal import isal_zlib

from faults.numbered import NumberedCollector
from plexd import api, metrics
from plexd.agent.signals import until_stopped
from plexd.spool import DiskSpool, MemorySpool
from support.clocks import HurriedClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import BatchName, MetricBatch, MetricPoint
    from plexd.spool import Refusal, Spool, SpoolStatistics

# Loaded with the first report otherwise, which would be after most kills of a forked run.
_PRELOADED = (aiohttp, isal_zlib)

__all__ = ["COLLECT_SECONDS", "Orders", "main", "told"]

COLLECT_SECONDS = 5.0
_REPORT_SECONDS = 10.0
_ENDLESS = 1_000_000_000
_TICK_SECONDS = 0.005
_SHOWN = ("error", "hint", "component")
# No run collects as many, so no number is used twice on one node.
_NUMBERS_PER_RUN = 1_000_000


class Orders(msgspec.Struct, kw_only=True):
    """What one run of the subject is to do.

    Attributes:
        url: the control plane.
        directory: of the spool; empty for one in memory.
        told: the file of the numbers promised, and ``told.kept`` of those taken in.
        log: the file of everything logged, and of tracebacks.
        run: counts the runs on one node from 0.
        cycles: collections until it runs dry; none but the endless (-1) keep it from ending
            once everything is delivered.
        size: points a cycle.
        hurry: how many seconds pass in one.
        lag: a file for the longest time the event loop was held up, written at the end.
    """

    url: str
    node: str
    directory: str
    told: str
    log: str
    token: str = ""
    run: int = 0
    cycles: int = -1
    size: int = 5
    batch_size: int = 7
    hurry: float = 500.0
    max_bytes: int = 64 * 1024 * 1024
    lag: str = ""


class ToldSpool:
    """A `Spool` that writes down what the one inside has taken in, once it is durable there."""

    def __init__(self, inner: Spool, path: str) -> None:
        self._inner = inner
        self._told, self._kept = map(_open_to_append, (path, f"{path}.kept"))
        self.changed = asyncio.Event()

    async def append(self, points: Sequence[MetricPoint]) -> None:
        await self._inner.append(points)
        numbers = [point.data.rtt_nano for point in points if hasattr(point.data, "rtt_nano")]
        lines = b"".join(b"%d\n" % number for number in numbers)
        # One write, and it stays in the page cache whoever is killed.
        os.write(self._kept, lines)
        if not self._inner.statistics().degraded:
            os.write(self._told, lines)
        self.changed.set()

    async def head(self, limit: int) -> MetricBatch | None:
        return await self._inner.head(limit)

    async def acknowledge(self, name: BatchName) -> None:
        await self._inner.acknowledge(name)
        self.changed.set()

    async def set_aside(self, refusal: Refusal) -> None:
        await self._inner.set_aside(refusal)
        self.changed.set()

    async def rename(self, name: BatchName, upto: int, newest: datetime) -> None:
        await self._inner.rename(name, upto, newest)
        self.changed.set()

    async def dead_letters(self) -> Sequence[Refusal]:
        return await self._inner.dead_letters()

    def statistics(self) -> SpoolStatistics:
        return self._inner.statistics()

    async def aclose(self) -> None:
        os.close(self._told)
        os.close(self._kept)


def _open_to_append(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def told(path: Path) -> list[int]:
    """The numbers promised so far; a last line cut short was not told."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [int(line) for line in whole.split()]


async def _run(orders: Orders) -> None:
    clock = HurriedClock(orders.hurry)
    logger = logging.getLogger("subject")
    async with AsyncExitStack() as stack:
        spool = ToldSpool(await stack.enter_async_context(_spool(orders, clock)), orders.told)
        stack.push_async_callback(spool.aclose)
        config = api.Config(orders.url, orders.token, request_timeout=timedelta(seconds=5))
        plane = await stack.enter_async_context(
            api.ControlPlane(config, logger=logger, clock=clock)
        )
        cycles = orders.cycles if orders.cycles >= 0 else _ENDLESS
        collector = NumberedCollector(orders.run * _NUMBERS_PER_RUN, orders.size, cycles)
        manager = metrics.Manager(
            metrics.Config(
                collect_interval=timedelta(seconds=COLLECT_SECONDS),
                report_interval=timedelta(seconds=_REPORT_SECONDS),
                batch_size=orders.batch_size,
            ),
            [collector],
            plane,
            orders.node,
            logger,
            spool=spool,
            clock=clock,
        )
        await _until_delivered(manager, spool, collector)


async def _until_delivered(
    manager: metrics.Manager, spool: ToldSpool, collector: NumberedCollector
) -> None:
    running = asyncio.create_task(manager.run())
    try:
        while not collector.is_dry or spool.statistics().waiting:
            await spool.changed.wait()
            spool.changed.clear()
    finally:
        running.cancel()
        await asyncio.wait([running])


def _spool(orders: Orders, clock: HurriedClock) -> DiskSpool | MemorySpool:
    if not orders.directory:
        return MemorySpool(clock=clock)
    logger = logging.getLogger("subject")
    return DiskSpool(Path(orders.directory), max_bytes=orders.max_bytes, clock=clock, logger=logger)


async def _measured(orders: Orders) -> None:
    """Run, and note by how much the event loop was ever late."""
    if not orders.lag:
        await _run(orders)
        return
    loop = asyncio.get_running_loop()
    lags = [0.0]

    def tick(due: float) -> None:
        lags.append(loop.time() - due)
        loop.call_later(_TICK_SECONDS, tick, loop.time() + _TICK_SECONDS)

    tick(loop.time())
    await _run(orders)
    _write(orders.lag, f"{max(lags):.6f}")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def main(argument: str) -> int:
    """Run until everything is delivered, or until SIGTERM; ``argument`` is `Orders` as JSON."""
    orders = msgspec.json.decode(argument, type=Orders)
    logging.basicConfig(
        filename=orders.log, format="%(asctime)s %(process)d %(message)s %(extra)s", level="INFO"
    )
    logging.getLogger().handlers[0].addFilter(_show_extra)
    asyncio.run(until_stopped(_measured(orders)))
    return 0


def _show_extra(record: logging.LogRecord) -> bool:
    record.extra = {k: v for k, v in vars(record).items() if k in _SHOWN}
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
