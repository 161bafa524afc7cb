"""A spool with one damaged byte, for every byte of its files."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool
from support.latency import latency_points
from support.receivers import StrictReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.api import MetricPoint
    from plexd.spool import SpoolStatistics

__all__ = ["FILES", "KINDS", "Specimen", "damaged"]

FILES = ("spool.db", "spool.db-wal", "spool.mark", "spool.lock")
KINDS = ("flip", "zero", "truncate")


def damaged(content: bytes, position: int, kind: str) -> bytes:
    """Flip or zero the byte at ``position``, or cut ``content`` there."""
    if kind == "truncate":
        return content[:position]
    byte = content[position] ^ 0xFF if kind == "flip" else 0
    return content[:position] + bytes([byte]) + content[position + 1 :]


class Specimen:
    """A spool as a killed agent leaves it: batches and collections, some in the -wal only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.receiver = StrictReceiver()
        self.points: dict[str, MetricPoint] = {}

    @classmethod
    async def make(cls, directory: Path) -> Specimen:
        """Make one in ``directory``: 129 points in small and large rows, 50 of them delivered."""
        made = cls(directory / "left")
        live = directory / "live"
        async with DiskSpool(live, max_bytes=2**20, clock=ManualClock()) as spool:
            for count in (50, 6, 50):
                await spool.append(made._more(count))
            await made.receiver.drain(spool, 1)
        # Closing moves the -wal into the database; what follows is in a new -wal.
        async with DiskSpool(live, max_bytes=2**20, clock=ManualClock()) as spool:
            await spool.append(made._more(12))
            await spool.append(made._more(4))
            await made.receiver.drain(spool, 1)
            await spool.append(made._more(7))
            shutil.copytree(live, made.directory)
        (made.directory / "spool.ballast").unlink()
        return made

    def _more(self, count: int) -> list[MetricPoint]:
        added = latency_points(count, len(self.points))
        self.points.update((point.peer_id, point) for point in added)
        return added

    def cases(self, stride: int, names: tuple[str, ...] = FILES) -> Iterator[tuple[str, str, int]]:
        """Yield every file, kind and position that changes the content."""
        for name in names:
            content = (self.directory / name).read_bytes()
            for kind in KINDS:
                for position in range(0, len(content), stride):
                    if kind != "zero" or content[position]:
                        yield name, kind, position

    async def outcome(self, name: str, kind: str, position: int) -> str:
        """Deliver from a copy with this damage; return the outcome as a line of the table.

        Raises `AssertionError` for what must not happen.
        """
        with tempfile.TemporaryDirectory(dir=self.directory.parent) as made:
            directory = Path(made) / "spool"
            shutil.copytree(self.directory, directory)
            content = (directory / name).read_bytes()
            (directory / name).write_bytes(damaged(content, position, kind))
            return await self._deliver(directory)

    async def _deliver(self, directory: Path) -> str:
        receiver = copy.deepcopy(self.receiver)
        receiver.marks.is_lenient = True
        async with DiskSpool(directory, max_bytes=2**20, clock=ManualClock()) as spool:
            await receiver.drain(spool)
            found = spool.statistics()
            # What is missing after the last point is reported with the next one.
            await spool.append(latency_points(1, len(self.points)))
            await receiver.drain(spool)
            receiver.points.popitem()
        for peer_id, point in receiver.points.items():
            assert point == self.points[peer_id], "an altered point was delivered"
        lost = len(self.points) - len(receiver.points)
        assert receiver.lost == lost, f"{lost} points lost, {receiver.lost} reported"
        return self._judged(found, lost)

    def _judged(self, found: SpoolStatistics, lost: int) -> str:
        assert not found.degraded, found
        assert found.waiting == 0, found
        assert found.appended == found.acknowledged + found.lost, found
        assert found.appended == len(self.points), found
        assert found.lost == lost, f"{lost} points lost, {found}"
        return "nothing lost" if lost == 0 else "loss reported exactly"
