"""Points that carry a running number, so that each of them can be told from all others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from plexd.api import GROUP_LATENCY, LatencyResult, MetricBatch, MetricPoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from plexd.metrics.ports import Collector

__all__ = ["Meta", "NumberedCollector", "account", "json_of", "number_of", "point_of"]

_EPOCH = datetime(2026, 2, 12, tzinfo=UTC)


def point_of(number: int) -> MetricPoint:
    """All of the point follows from its number, so that no altered byte goes unnoticed."""
    peer = f"peer-{number % 50}"
    moment = _EPOCH + timedelta(milliseconds=number)
    return MetricPoint(
        timestamp=moment, group=GROUP_LATENCY, peer_id=peer, data=LatencyResult(peer, number)
    )


def json_of(number: int) -> bytes:
    return MetricBatch([point_of(number)]).to_json()[1:-1]


class _Numbered(msgspec.Struct):
    data: LatencyResult


def number_of(point: bytes) -> int:
    return msgspec.json.decode(point, type=_Numbered).data.rtt_nano


class NumberedCollector:
    """A `Collector` of ``size`` points a cycle, numbered from ``first`` on; then it runs dry.

    A cycle that is cut has used up the numbers it yielded, and no others.
    """

    def __init__(self, first: int, size: int, cycles: int) -> None:
        self._next = first
        self._size = size
        self._left = cycles

    @property
    def is_dry(self) -> bool:
        return self._left <= 0

    async def collect(self) -> AsyncIterator[MetricPoint]:
        if self.is_dry:
            return
        self._left -= 1
        for _ in range(self._size):
            self._next += 1
            yield point_of(self._next - 1)


@dataclass(frozen=True, slots=True)
class Meta:
    """What became of the points: ``told`` was durably collected, ``arrived`` had an effect."""

    told: int
    arrived: int
    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    altered: tuple[bytes, ...]

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.doubled or self.altered)

    def __str__(self) -> str:
        return (
            f"{self.told} told, {self.arrived} arrived, lost {list(self.lost[:5])} "
            f"({len(self.lost)}), doubled {list(self.doubled[:5])} ({len(self.doubled)}), "
            f"altered {self.altered[:2]} ({len(self.altered)})"
        )


def account(told: Iterable[int], arrived: Sequence[bytes]) -> Meta:
    """Every told point exactly once, nothing twice, no byte of any altered."""
    promised = set(told)
    counts = Counter(number_of(point) for point in arrived)
    return Meta(
        told=len(promised),
        arrived=len(arrived),
        lost=tuple(sorted(promised - counts.keys())),
        doubled=tuple(number for number, times in counts.items() if times > 1),
        altered=tuple(point for point in arrived if point != json_of(number_of(point))),
    )


if TYPE_CHECKING:
    _: type[Collector] = NumberedCollector
