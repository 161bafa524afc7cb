"""A fleet comes back in the same second, each node with a backlog (H12).

The nodes share some thousand sockets of one process. Each sends its batches in order, as an agent
does, and waits as long as it is asked to before it sends one again. Afterwards the server's file is
asked for every point of every node.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from contextlib import closing
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import duckdb

from faults.forks import Forks, Started
from faults.numbered import json_of, point_of
from faults.serving import Server
from plexd.api import BatchName
from plexd.clock import SystemClock
from plexd_server.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Herd", "come_back"]

_BATCHES = 5
_POINTS = 10
# More than the server works on at once.
_SOCKETS = 4000
_EPOCH = "0123456789abcdef0123456789abcdef"
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
# Not in all: a node may wait minutes for a socket, as those that wait for an answer have theirs.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=120, sock_read=120)


class Herd(NamedTuple):
    """``nodes`` that came back: their points, and how often they were told to come later.

    ``peak_mib`` is the server's largest resident memory.
    """

    nodes: int
    points: int
    lost: int
    doubled: int
    altered: int
    refusals: int
    seconds: float
    peak_mib: float


class _Fleet:
    """The nodes of ``tokens``; all send the same bodies."""

    def __init__(self, url: str, tokens: dict[str, str]) -> None:
        self.refusals = 0
        self._url = url
        self._tokens = tokens
        self._bodies = [
            b"[" + b",".join(map(json_of, range(first, first + _POINTS))) + b"]"
            for first in range(0, _BATCHES * _POINTS, _POINTS)
        ]

    async def deliver(self) -> None:
        connector = aiohttp.TCPConnector(limit=_SOCKETS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            asyncio.TaskGroup() as nodes,
        ):
            for node, token in self._tokens.items():
                nodes.create_task(self._drain(session, node, token))

    async def _drain(self, session: aiohttp.ClientSession, node: str, token: str) -> None:
        for number, body in enumerate(self._bodies):
            headers = {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Plexd-Batch": str(BatchName(_EPOCH, 1 + number * _POINTS, _POINTS)),
                "Plexd-After": "none;skipped=0",
                "Plexd-Dropped": "0",
            }
            while (wait := await self._post(session, node, headers, body)) is not None:
                self.refusals += 1
                await asyncio.sleep(wait * random.uniform(1, 1.1))

    async def _post(
        self, session: aiohttp.ClientSession, node: str, headers: dict[str, str], body: bytes
    ) -> float | None:
        """The seconds the server asks for, None once it has taken the batch."""
        url = f"{self._url}/v1/nodes/{node}/metrics"
        async with session.post(url, data=body, headers=headers) as answer:
            assert answer.status in {200, 429, 503}, await answer.text()
            return None if answer.status == 200 else float(answer.headers["Retry-After"])


def come_back(nodes: int, directory: Path) -> Herd:
    """Let ``nodes`` nodes deliver five batches each, all at once."""
    with Forks("faults.serving") as forks, Server(directory, forks) as server:
        server.data.mkdir(mode=0o700)
        with closing(Registry(server.data, clock=SystemClock())) as registry:
            names = [f"n{number}" for number in range(nodes)]
            tokens = {name: registry.create_node(name).auth_token for name in names}
        running = server.start()
        assert isinstance(running, Started)
        server.wait_until_it_answers()
        fleet = _Fleet(server.url, tokens)
        began = time.monotonic()
        asyncio.run(fleet.deliver())
        seconds = time.monotonic() - began
        found = _PEAK.search(running.status("status"))
        assert found is not None
        server.stop()
        lost, doubled, altered = _judged(server.data / "points.duckdb", names)
    points = nodes * _BATCHES * _POINTS
    peak_mib = int(found[1]) / 1024
    return Herd(nodes, points, lost, doubled, altered, fleet.refusals, seconds, peak_mib)


def _judged(path: Path, names: list[str]) -> tuple[int, int, int]:
    expected = [point_of(number) for number in range(_BATCHES * _POINTS)]
    owed = {(name, number) for name in names for number in range(len(expected))}
    doubled = altered = 0
    with duckdb.connect(path, read_only=True) as store:
        rows = store.execute("SELECT node_id, ts, peer_id, rtt_nano FROM points_latency").fetchall()
    for node, stamp, peer, number in rows:
        if not 0 <= number < len(expected) or (
            (stamp.replace(tzinfo=UTC), peer)
            != (expected[number].timestamp, expected[number].peer_id)
        ):
            altered += 1
        elif (node, number) in owed:
            owed.remove((node, number))
        else:
            doubled += 1
    return len(owed), doubled, altered
